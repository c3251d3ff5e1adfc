"""Story shapes of adventure, magic and far places, and some of every day. The notation is explained in story_grammar.py."""

# ruff: noqa: E501

FAR = r"""
three wishes: A=child Q=wish Y=finder G=parent H=home
@meet @day {he} found {Y} [in the sand|under an old tree|at the market]. When {he} rubbed it, a tiny fairy jumped out. "[Thank you for setting me free|I was in there for a hundred years]!" said the fairy. "You may make one wish."
/ {A} did not think for long. "I wish for {Q}!" {he} said.
[There was a flash of light.|The ground began to shake.] At once, {Q.got}. {A} [jumped for joy|could not believe {his} eyes]. "[This is the best day of my life|Now I have everything I ever wanted]!" {he} shouted.
/ But [soon|after a while], {Q.bad}. {A} [began to worry|was not so happy anymore]. "[I did not think of that|This is not what I wanted]," {he} said.
{^his} {G} [looked at everything and shook {G.his} head|sat down next to {him}]. "[Be careful what you wish for|The best things cannot be wished for]," {G.he} said.
/ {A} took {Y.the} and rubbed it again. "Please [take the wish back|make everything as it was before]!" {he} begged. "[Are you sure?|Do you really want that?]" asked the fairy. "[I am sure|Yes, I have all that I need]," said {A}. There was a flash, and everything was as it had been before.
- {A} gave {his} {G} a long hug. [The soup on the table smelled wonderful.|Their little home had never looked so nice.]
> {A} [put|hid] {Y.the} back where {he} had found it, and {he} never wished for {Q} again.
? What did {A} wish for? = {Q}
? What did {A} find? = {Y}
! who finds {Y} and makes a wish
~ A Q Y

dragon friend: A=child D=dragon_name C=color K=dragon_fear H=home
@meet Everybody said that a terrible dragon lived on the mountain. [Nobody dared to go there.|At night, people saw smoke above the rocks.] But {A} wanted to see the dragon with {his} own eyes.
/ @day {he} [packed some bread and climbed up the mountain|walked up the steep path]. In a cave sat a big {C} dragon, and it was crying! "[Why are you crying|What is wrong], dragon?" asked {A}. {He} was so surprised that {he} forgot to be afraid.
"My name is {D}," said the dragon. "[Do not laugh|Promise not to tell anyone]. I am afraid of {K}."
/ {A} did not laugh. "[I am afraid of the dark|I was afraid of dogs once]," {he} said. "[Everyone is afraid of something|That is nothing to be ashamed of]. [I can help you|Let us do something about it]."
/ Every day, {A} came back. {He} told {D} stories about {K}. [First they looked at a picture.|They talked about it and even made a song.] [Little by little|Day after day], {D} became braver. And one day, {D} was not afraid of {K} anymore. "[Look at me|I did it], {A}!" {D} roared and blew a ring of smoke.
- "[Would you like to fly?|Climb on my back,]" said {D}. {A} held on tightly, and they flew over the [roofs|river and the fields]. [The people below ran out of their houses.|The village looked like a toy.]
/ When the people saw {A} on the dragon's back, they [were not afraid anymore|opened their mouths wide]. "[{D} is my friend|This is {D}, and {D} is kind]!" called {A}.
> From then on, {D} the {C} dragon [kept the bakers' ovens hot|lit the lamps every evening], and nobody but {A} knew that {D} had once been afraid of {K}.
? What was the dragon afraid of? = {K}
? What was the name of the dragon? = {D}
? What color was the dragon? = {C}
! who meets a {C} dragon named {D}
~ A D K C

treasure map: A=child B=child R=treasure P=dig_place G=elder H=home
@meet @day {A} and {his} friend {B} found an old map in [the attic|{A}'s {G}'s desk|a dusty book]. [There was a red cross on it.|It was yellow and had a hole in one corner.] "A treasure map!" [whispered|cried] {B}. "[Let us find the treasure|Come on, let us go]!"
/ They took a shovel and followed the map. [First they counted fifty steps to the old well.|First they went past the school and over the bridge.] Then they had to [climb over a wall|crawl through a hedge]. [The sun was hot, and {B} got a scratch on the knee.|They got lost twice and had to turn back.] "[Is it only a joke|Are we nearly there]?" asked {B}. "[We cannot stop now|Just a little farther]," said {A}.
/ At last, they stood {P}. "[It must be here|This is the place]!" said {A}. They took turns and dug. The hole grew deeper and deeper. Clunk! The shovel hit something hard. It was a little [chest|box]! With shaking hands, {A} opened it. Inside was {R}.
- "[It is not gold|It is not what I thought]," said {B}, "but it is [wonderful|beautiful]." [They looked at it from every side.|{A} blew the dust away.]
/ They ran to show it to {A}'s {G}. {^G.he} [laughed until {G.he} had tears in {G.his} eyes|took it and was quiet for a while]. "I buried {R} when I was your age," said {his} {G}. "[I drew that map myself|And then I forgot all about it]. [Thank you for finding it|You have brought back my childhood]!"
> {A} and {B} gave {R.the} back, but {A}'s {G} [smiled and said that it was theirs now|told them to keep it], because they had dug so hard {P}.
? What was in the box? = {R}
? Who went with {A}? = {B}
? Who had buried the treasure? = {G}
! who finds a map and {R}
~ A B R

robot helper: A=child N=robot_name J=chore G=parent C=color H=home
@meet {He} did not like to [work|help at home]. [There was always something better to do.|{He} would rather lie in bed.] "Please {J}, {A}," said {his} {G} every day. "[Tomorrow|Later]," said {A}.
/ @day {A} built a robot [out of old cans and wires|from a box of spare parts]. It had {C} eyes and a round head. {A} called it {N}. "{N}, {J}!" said {A}.
"[Yes, {A}|At once]," said {N}. And the robot [did it|did the work] much faster than {A} ever could. {A} was [delighted|very pleased]. "[I will never have to work again|This is the best idea I ever had]!" {he} said.
/ But {N} did not know when to stop. The next day, it [packed all the toys into boxes|washed the homework in the sink|swept the cat out of the door|painted the floor]. "Stop, {N}!" shouted {A}. "[More work?|Yes, {A},]" said {N} and went on. It [tied knots in the curtains|put the shoes in the oven|cut the grass in the neighbor's yard, and the flowers too].
/ "[What is going on here?|Who did all this?]" {A}'s {G} [cried|asked]. {A} had to [run after {N} through the whole house|jump on {N}'s back] to reach the switch. Click. It was quiet. [{A} looked around and felt ashamed.|The house was a terrible mess.]
- "[It is my fault|I am sorry, {G.call}]," said {A}. "[I only wanted to be free|I did not want to do it myself]." "[A robot has no heart and no sense|A machine only does what it is told]," said {his} {G}.
> {A} cleaned up all day long, and after that {he} [did not have to be told to {J}|never asked {N} to {J} again], while {N} stood in the corner with its {C} eyes closed.
? What was the name of the robot? = {N}
? Who built the robot? = {A}
? What color were the eyes of the robot? = {C}
! who builds a robot named {N}
~ A N J C

storm at sea: A=child M=captain V=ship C=color S=sea_animal H=home
@meet {He} wanted to be a sailor. [{He} knew the name of every star.|{He} could tie all the knots.] So one summer, {M} took {him} along on a ship called the {V}. It had {C} sails [and a bell of brass|and smelled of salt].
/ For three days, the sea was [as flat as a mirror|calm]. {A} [scrubbed the deck|peeled potatoes in the kitchen] and watched the [seagulls|clouds]. Then the wind turned. Black clouds covered the sky, and the waves grew as high as houses. "[Hold on|Everybody, take down the sails]!" shouted {M}.
/ [Water crashed over the deck.|The {V} rolled from side to side.] The lamp went out, and nobody knew which way the land was. "[We are lost|If we hit the rocks, we will sink]," said a sailor.
But {A} had seen something in the water. It was a {S}, and it [swam around the ship and then away|swam in a straight line]. "Follow the {S}!" called {A}. "[My grandma told me that it always swims to the shore|It knows the way]!"
{M} [looked at {A} and then at the sea|thought for a moment]. "[Do as {A} says|Turn the wheel]!" {M.he} ordered.
/ They followed the {S} through the night. [The wind screamed in the ropes.|Nobody slept.] When morning came, they saw [a quiet bay|a lighthouse and green hills]. They were safe!
- The sailors [carried {A} around on their shoulders|cheered and threw their caps into the air]. "[You have good eyes and a brave heart|You are a real sailor now], {A}," said {M}.
> {A} threw a fish to the {S} to thank it, and {M} [painted a little {S} on|carved {A}'s name into] the side of the {V}.
? What was the name of the ship? = {V}
? What did {A} see in the water? = {S}
? Who was the captain? = {M}
! who sails on a ship called the {V}
~ A M V S

camping: A=child G=parent L=night_thing W=wear C=color B=sibling H=home
@meet @day {A}, {his} {B} and {his} {G} went camping [by the lake|in the woods]. They put up the tent, gathered wood and made a fire. "[Tonight we will sleep under the stars|This is our house for tonight]," said {his} {G}.
/ When it was dark, they [roasted marshmallows|ate beans from a tin] and told stories. {A}'s {B} [was afraid of the dark|moved closer to the fire]. "[What if a bear comes?|Is there something in the bushes?]" {B.he} asked.
"[There is nothing there|Bears do not like smoke]," said {A}, but {he} was not so sure.
/ In the middle of the night, {A} woke up. Something was moving outside! [Leaves rustled.|There was a soft, slow sound.] {^his} {B} sat up too and grabbed {A}'s arm. "[I heard it|It is coming closer]," {B.he} whispered.
/ {A} put on {his} {C} {W}, took the flashlight and [opened the tent a little|crept out]. [{He} counted to three.|{His} mouth was dry.] {He} pointed the light at the noise. And there sat {L} with its nose in the bread bag! "[It is only {L}|Come and look]!" {A} called softly.
- All three of them [watched it eat|sat very still and watched]. It looked at them with shining eyes and [did not run away|took one more piece]. [Then it went back into the night.|Then it was gone.]
> In the morning, {A} took off {his} {C} {W}, and {his} {B} said, "[I was not afraid of {L.the}|I hope {L.the} comes again]."
? What was the noise? = {L}
? Who was with {A} in the tent? = {B}
? What did {A} put on? = {W}
! who goes camping and wears a {C} {W}
~ L W C B

secret door: A=child B=child K=keepsake C=color W=world H=home
@meet @day {A} found a {C} {K} [in the attic|behind a loose brick]. [It was cold and heavy.|It began to glow in {his} hand.] When {he} held it up, a small door appeared in the wall! {A} [pushed the door open|stepped inside].
/ Behind the door was {W}. [{A} rubbed {his} eyes.|"Am I dreaming?" {A} asked.] A {B.kind} with [silver|green] hair came up to {him}. "I am {B}," {B.he} said. "[We have waited for you|At last, somebody came]! [Our sun|The great lamp] has gone out, and only the {C} {K} can light it again."
/ {A} and {B} [ran up a hill of glass|climbed a stair of a thousand steps]. [It grew darker and darker.|A cold wind blew in their faces.] "[Do not let go of my hand|We must hurry]," said {B}. At the top, there was a stone with a hole in it. {A} put the {K} in, and it fit! Light [ran over the whole land|poured out in every direction]. [Bells rang|Voices cheered] below.
/ "[You saved us|You are a hero], {A}!" cried {B}. "[Will you stay?|You can stay as long as you like.]"
{A} [looked around|thought of home]. "[My family is waiting for me|I have to go home]," {he} said, "but I will never forget you."
- {B} gave {him} a [feather|small stone] that shone like a star. "[When it shines, I am thinking of you|It will show you the way back]," {B.he} said.
> {A} walked back through the door, and it closed behind {him}, but [in the evenings {he} still thought|{he} often dreamed] of {B} and {W}.
? What did {A} find? = {K}
? Who met {A} behind the door? = {B}
? What color was the {K}? = {C}
! who finds a {C} {K} and a secret door
~ A/B A B W

back to the sea: A=child S=sea G=parent B=sibling C=color H=home
@meet @day {A} and {his} {B} went to the beach with their {G}. [The sea was blue and the sand was warm.|They built a castle with four towers.] {A} carried a {C} bucket and looked for shells.
/ Between two rocks, {A} saw a {S}. The water had gone out, and it was [stuck in a tiny pool|lying on the dry sand]. "[Look what I found|Come here, quick]!" {he} called. {^his} {B} [came running|bent down].
"Let us take it home!" said {his} {B}. "[It can live in the bathtub|I will put it in a jar]."
/ {A} put the {S} into the {C} bucket with some water. It [moved slowly around|looked so small]. {A} [watched it for a long time|thought about it]. "[Do you think it misses the sea?|How would we feel in a bucket?]" {A} asked. "[The sea is its home|It would be sad with us]."
{^his} {B} [made a face|was quiet]. Then {B.he} nodded. "[You are right|That is true]," {B.he} said.
/ Together they carried the bucket over the rocks to the deep water. [The waves splashed their legs.|They had to be careful not to slip.] {A} lowered the bucket, and the {S} [slipped out|swam out]. It turned around once, as if it wanted to say thank you. Then it was gone.
- "[I am proud of you two|You have kind hearts]," said their {G}. "[The sea will remember|Now it can find its family]." [They ate ice cream and watched the sun go down.|They walked home with sand in their shoes.]
> All the way home, {A} swung the empty {C} bucket, and {his} {B} [made up a story|sang a song] about the {S}.
? What did {A} find? = {S}
? What color was the bucket? = {C}
? Who was with {A} at the beach? = {B}
! who finds a {S} at the beach
~ A S C B

zoo visit: A=child Z=zoo Y=zoo G=elder M=adult H=home
@meet @day {his} {G} took {him} to the zoo. "[What would you like to see first|Which animal is your favorite], {A}?" asked {his} {G}.
"The {Z}!" said {A}. "[I want to be the first to see it|I have a picture of one above my bed]."
/ But first they came to the {Y}. It {Y.does}. [{A} laughed out loud.|{A} clapped {his} hands.] Then they walked on [past the trees|over a little bridge], and there was the {Z}! It {Z.does}. {A} [could not move|stood still with {his} mouth open].
/ The keeper, {M}, came out with a bucket of food. "[Would you like to help me?|Do you have steady hands?]" {M.he} asked. "[The {Z} is hungry|It is time for lunch]."
{A} looked at {his} {G}. "[May I|Can I], please?" {His} {G} nodded. [{A} held out the food on a flat hand.|{A} threw the food over the fence.] The {Z} looked at {him} and ate it all. "[It likes you|You did that very well]," said {M}.
- "[What does it do at night|Does it have a name]?" asked {A}. {M} knew [the answer to everything|many funny stories]. [They talked for half an hour.|{A} wanted to know more and more.]
/ In the evening, {A} fell asleep [on the bus|in the car]. [{He} smiled in {his} sleep.|{He} did not even wake up at home.]
> In {his} dream, {A} [gave lunch to|was feeding] the {Z} again, and {M} [told {him}|said] that {he} would be a good zookeeper one day.
? Which animal did {A} want to see first? = {Z}
? Who took {A} to the zoo? = {G}
? What was the name of the keeper? = {M}
! who wants to see a {Z}
~ A Z M

letter: A=child G=elder X=letter_gift Q=letter_news C=color H=home
@meet {His} {G} lived far away, [on the other side of the sea|behind the mountains], and {A} missed {G.him}. "[Why do you not write a letter?|How about a letter?]" asked {his} mom.
/ So {A} [took a pencil and a sheet of paper|sat down at the table] and wrote: "Dear {G.call}, {Q}. [I think of you every day.|I wish you were here.] Love, {A}." {He} put a {C} drawing into the envelope and [a stamp on it|licked it shut]. Then {he} dropped it into the mailbox.
/ Every day, {A} asked the [mailman|mail carrier], "[Is there a letter for me|Do you have something for me]?" And every day the [answer was no|man shook his head]. [A week passed, and then another.|It began to rain, and {A} sat by the window.] "[Maybe it got lost|Maybe {G.he} forgot me]," said {A}.
/ Then, one morning, the bell rang. There was a package for {A}! Inside was {X} and a letter. "[My dear {A}|Dear {A}]," it said. "[I read your letter ten times|Your letter made me so happy]. I [laughed when I read it|showed your {C} drawing to everybody]. [Look for me on Sunday|I am coming to visit you soon]. Love, {G.call}."
- {A} read it [aloud to everyone|until {he} knew it by heart]. [{He} could not sleep that night.|{He} ran around the house three times.]
> And when {his} {G} stood at the door, {A} [ran out with|was holding] {X.the}, and they [hugged for a long time|had so much to tell each other].
? Who did {A} write to? = {G}
? What was in the package? = {X}
? What color was the drawing? = {C}
! who gets {X} in a package
~ A G X

troll riddle: A=child T=kind_trait M=riddle G=parent B=monster_name H=home
@meet {He} was {T} and {T.line}. @day {his} {G} [asked {him} to bring some bread to the mill|sent {him} over the bridge to buy milk].
/ Under the bridge lived a troll called {B}. [{B.He} had green hair and a nose like a potato.|{B.His} hands were as big as shovels.] "[Stop!|Who walks over my bridge?]" roared {B}. "Nobody may cross, unless they can answer my riddle."
/ {A}'s knees [shook|felt weak], but {he} stood still. "[Ask me, then,|What is your riddle?]" {he} said.
{B} grinned. "{M}" {B.he} asked. "[Nobody has ever known the answer|If you are wrong, you must clean my cave for a year]."
/ {A} thought and thought. [A bird sang in a tree.|The river went by under {him}.] {He} looked at the water, at the sky and at {his} own hands. "[I know it|I have it]!" {he} said at last. "It is {M.key}!"
{B}'s mouth fell open. "[How did you know that?|That is right!]" {B.he} cried. {B.He} sat down and [began to cry|looked very sad]. "[That was my only riddle|Now I have no riddle left]."
- {A} felt sorry for {B.him}. "[I know some riddles|I can tell you a new one]," {he} said, and {he} sat down on the bridge. [They traded riddles until noon.|Soon they were both laughing.]
> After that, {A} crossed the bridge every week with a new riddle for {B}, but {B}'s favorite answer was always {M.key}.
? What was the answer to the riddle? = {M.key}
? Who lived under the bridge? = {B}
! who answers the riddle of a troll named {B}
~ A/B A B M

magic brush: A=child O=painted C=color M=king T=kind_trait H=home
@meet {He} was {T} and {T.line}. {A} loved to paint, but {he} was too poor to buy a brush. {He} painted with [a stick in the sand|water on the stones].
/ One night, an old woman came to {him} in a dream and gave {him} a {C} brush. When {A} woke up, the {C} brush lay next to {his} pillow! {He} painted {O} on the wall. [There was a sound like a bell.|The picture began to move.] And {O.the} came out of the wall and was real!
/ {A} painted for the people in the village. {He} painted [bread for the hungry|shoes for the children] and [a cow for a poor farmer|a warm coat for an old man]. [Everybody loved {him}.|Nobody was hungry anymore.]
/ King {M} heard about the brush. "Paint me a mountain of gold!" [ordered|said] King {M}. "[You have enough gold|Gold cannot be eaten]," said {A}. "[Paint|Do it], or I will lock you up!" shouted the king.
So {A} painted a [blue sea|wide sea] with a golden mountain far away, and a ship to sail there. King {M} [ran on board|jumped onto the ship] with his soldiers. "[Faster|More wind]!" he called. {A} painted wind, and more wind, until the ship [was only a dot|could not be seen anymore].
- King {M} [found an island and had to learn to fish|was never seen again]. [The people danced in the streets.|The new queen was good to everyone.]
> {A} kept the {C} brush and painted only for those who needed help, but {O.the}, the first thing {he} had made, [always stayed with {him}|was still {his} favorite].
? What did {A} paint first? = {O}
? What color was the brush? = {C}
? Who wanted gold? = King {M}
! who has a {C} brush and paints {O}
~ A C O

lighthouse: A=child G=elder V=ship L=light_thing H=lighthouse_home
@meet {His} {G} took care of the lighthouse. Every evening, {his} {G} lit the great lamp, so that the ships could find their way. "[The light must never go out|The sailors trust us]," {G.he} always said.
/ One [stormy|dark] night, {his} {G} [slipped on the stairs and hurt {G.his} leg|lay in bed with a fever]. The wind howled, and the great lamp went out! "[I cannot get up|I cannot climb the stairs], {A}," said {his} {G}. "[You must do it|Now it is up to you]."
/ {A} took {L} and ran up the stairs, round and round. [There were two hundred steps.|The wind came in through every crack.] At the top, {he} tried to light the lamp, but [the matches were wet|the oil was empty]. Out on the black water, {A} saw a ship. It was the {V}, and it was coming straight toward the rocks!
/ {A} did not waste a moment. {He} [held {L.the} up high|hung {L.the} in the window] and swung it from left to right. "[This way|Turn around]!" {he} shouted into the wind. [{His} arms hurt, but {he} did not stop.|Tears ran down {his} cheeks from the cold.] Slowly, very slowly, the {V} turned away from the rocks.
- In the morning, the storm was over. [{A} was asleep on the floor beside the lamp.|{A} came down, tired and cold.] "[You saved them all|I have never been so proud]," said {his} {G}.
> The sailors of the {V} came to thank {A}, and {L.the} [hangs|stands] in the lighthouse to this day.
? What was the name of the ship? = {V}
? What did {A} use to make light? = {L}
? Who took care of the lighthouse? = {G}
! who saves a ship called the {V}
~ A V L

loose tooth: A=child G=parent S=snack I=tooth_gift B=child H=home
@meet {He} had a loose tooth. [It moved when {he} talked.|{He} pushed it with {his} tongue all day.] "[When will it come out|Will it hurt], {G.call}?" {he} asked.
"[It will come out when it is ready|Soon, I think]," said {his} {G}.
/ {His} friend {B} had [already lost two teeth|a big gap in {B.his} teeth]. "[Tie a string to it and to the door|I can pull it out for you]," said {B}. {A} shook {his} head. {He} was [a little afraid|not so brave].
/ At [lunch|dinner], {A} was eating a {S}. {He} took a big bite, and suddenly there was something hard in {his} mouth. It was {his} tooth! "[It is out|My tooth, my tooth]!" {he} shouted. [It had not hurt at all.|There was only a tiny drop of blood.]
{B} [laughed|cheered]. "[Now you look like me|The {S} did it]!" {B.he} said.
/ That night, {A} put the tooth under {his} pillow. [{He} tried to stay awake.|{He} closed {his} eyes tightly.] In the morning, the tooth was gone, and in its place was {I}!
- {A} ran to {his} {G} and smiled, and {his} {G} could see the gap. "[You are getting big|Look at that smile]," said {his} {G}.
> At school, {A} showed {B} {I.the}, and they both [said|agreed] that it was the best {S} {A} had ever eaten.
? What was {A} eating? = {S}
? What was under the pillow in the morning? = {I}
? Who had already lost teeth? = {B}
! who loses a tooth and gets {I}
~ A/B A B I S

loud music: A=child I=instrument M=adult G=parent B=sibling H=home
@meet For {his} birthday, {he} had got a {I}. {A} played it [in the morning, at noon and at night|from breakfast to bedtime]. It was very loud. [The cat hid under the bed.|The windows shook.] "[My poor ears|Please, {A}, not now]!" cried {his} {B}.
/ @day {M} from next door came over. {M.He} looked [pale and tired|unhappy]. "[I work at night and sleep in the day|I have a bad headache]," {M.he} said. "[Could somebody please stop that noise?|I have not slept for a week.]"
{A} was [hurt|sad]. "[It is not noise|But it is music]," {he} said in a small voice.
/ {^his} {G} put a hand on {his} shoulder. "[Good music knows when to be quiet|You can love your {I} and still think of others]," {G.he} said. "[When would be a good time|Shall we find a place for it]?"
/ So {A} went next door and asked {M}, "When may I play?" {M} was [surprised|touched]. "After four o'clock," {M.he} said. "[Then I am awake|That would be very kind]." From then on, {A} [played only after four|looked at the clock before {he} played]. In the quiet hours, {he} [learned to read the notes|tapped the songs softly on {his} knees].
- And because {he} practiced every day, {his} playing became [better and better|really good]. [Even the cat came out to listen.|{His} {B} began to dance to it.]
> One day at four o'clock, the bell rang, and there stood {M} with [a cello|an accordion], [ready to play|and asked to play] along with {A}'s {I}.
? What did {A} get for {his} birthday? = {I}
? Who lived next door? = {M}
? When may {A} play? = after four
! who plays a {I}
~ M A I

bossy player: A=child B=child O=sturdy_toy N=child C=color H=home
@meet {He} had a new {C} {O}, and everyone wanted to see it. [But {A} did not let anybody touch it.|"Do not touch it!" said {A}.] "[I say what we play|It is mine, so I make the rules]," {he} told {B} and {N}.
/ "[Can I have a turn?|May I hold it, just once?]" asked {B}. "No," said {A}. "[Can we play something else?|Shall we play tag?]" asked {N}. "No," said {A}. "[We do what I want|You must only watch]."
/ After a while, {B} and {N} [looked at each other and left|went away]. They [began to play tag in the yard|built a ship out of sticks]. {A} could hear them [laugh|laughing]. {He} sat alone with the {C} {O}. [It was not much fun.|The {O} was shiny and new, but it could not talk.] {A} [felt a cold spot in {his} stomach|began to feel lonely].
/ "[Why did I do that|What good is a {O} without friends]?" {he} thought. {He} picked up the {O} and walked over. "[I am sorry|I was not nice to you]," {he} said. "Would you like to play with my {O}? [You can go first|You may choose the game], {B}."
{B} and {N} smiled. "[Of course|We would love to]," said {N}. [They made up a wild new game.|Soon they were all running and shouting.]
- When it was time to go home, {A} let {N} take the {C} {O} for one night. "[Bring it back tomorrow|I know you will take care of it]," {he} said. [It felt strange, but it felt good.|{N} could hardly believe it.]
> {A} had learned that a {C} {O} is [nice|fine], but that it is much more fun to share it with {B} and {N}.
? What was {A}'s new toy? = {O}
? Who asked for a turn first? = {B}
? What color was the {O}? = {C}
! who does not share a {C} {O}
~ A O B C

telescope: A=child G=elder X=sky_thing W=sky_wish B=child H=home
@meet One night, {he} [could not sleep|was wide awake]. {He} looked out of the window and saw a light on the roof. It was {his} {G} with a telescope! "[Come up|Put on a coat and come here], {A}," {G.he} called. "[Tonight is a special night|The sky is so clear]."
/ {A} climbed up the ladder. The air was cold, and there were more stars than {he} could count. "[Look through here|Close one eye]," said {his} {G}. {A} looked and saw {X}. "[It is so beautiful|It is so near]!" {he} whispered. "[How far away is it|Can we go there]?"
"[It is so far that a train would need a million years|It is very far, but your eyes have just been there]," said {his} {G}.
/ They drank hot tea and named the stars. Then a bright line ran across the sky. "A shooting star!" cried {A}. "[Make a wish|Quick, wish for something]," said {his} {G}. {A} closed {his} eyes and wished for {W}.
- "[What did you wish for?|Will you tell me your wish?]" asked {his} {G}. "[It is a secret|If I tell you, it will not come true]," said {A} and smiled.
/ The next day, {A} told {his} friend {B} all about it. "[May I come too?|I want to see it with my own eyes,]" said {B}.
> So that night, all three of them stood on the roof, and {B} saw {X} for the first time, while {A} still [hoped|wished] for {W}.
? What did {A} see through the telescope? = {X}
? What did {A} wish for? = {W}
? Who had a telescope? = {G}
! who sees {X} through a telescope
~ A/B B X W A

lemonade stand: A=child B=child F=soft_drink I=gift M=adult H=home
@meet {He} wanted to buy a {I} for {his} mom's birthday, but {he} had no money. "[I have an idea|I know what we can do]," said {his} friend {B}. "Let us sell {F}!"
/ They [set up a table|carried a table] in front of {A}'s house and painted a sign. [It was a hot day.|The sun was burning.] They waited and waited. [Nobody came.|One man came, but he only asked for the time.] "[This will never work|We have sold nothing]," said {A}.
{B} tasted the {F} and [made a face|laughed]. "[No wonder. It is too sour|You forgot the honey]!" {B.he} said. They [added some honey|put in ice and honey] and tried again. Now it was [delicious|just right].
/ Then {M} came along the street. "[It is so hot|I am so thirsty]," {M.he} said and bought a glass. {M.He} drank it, [closed {M.his} eyes and smiled|and {M.his} face lit up]. "[This is the best {F} in town|I must tell all my friends]!" {M.he} said. Soon there was a long line in front of the table.
/ By evening, the {F} was gone, and the money box was full. [They counted the coins three times.|Their feet hurt, but they were happy.] "[We have enough|It is enough], {B}!" cried {A}.
- "[Half of it is yours|You must take your share]," said {A}. But {B} shook {B.his} head. "[Buy the {I} first|Your mom's present comes first]," said {B}. [That is what friends are for.|{A} gave {B.him} a big hug.]
> On the birthday, {A}'s mom unpacked the {I} and [asked|wanted to know] where it came from, and {A} said, "[From {B}, from me and from a lot of {F}|{B} and I sold {F}]!"
? What did they sell? = {F}
? What did {A} want to buy? = {I}
? Who helped {A}? = {B}
! who sells {F} to buy a {I}
~ A/B B I F

bus ride: A=child G=parent U=place Q=keepsake M=driver C=color H=home
@meet @day {A} and {his} {G} took the bus to the {U}. {A} had {his} {C} {Q} with {him}. [{He} never went anywhere without it.|{He} wanted to show it to {his} cousin.] {He} put it on the seat and looked out of the window. [There were tall houses and green trees.|A dog ran beside the bus for a while.]
/ "[This is our stop|Quick, we have to get off]!" said {his} {G}. They jumped out, and the bus drove away. Then {A} [looked at {his} hands|stopped]. "My {Q}!" {he} cried. "[I left it on the bus|It is still on the seat]!"
/ {A} ran after the bus, but it was too fast. It turned the corner and was gone. [{A} sat down on the curb and cried.|Two big tears ran down {A}'s face.] "[It is gone forever|I will never see it again]," {he} said.
"[Do not give up yet|The bus comes back this way]," said {his} {G}. "[Every bus goes in a circle|We will wait for it]." So they waited. [One bus came, but it was the wrong one.|It took almost an hour.]
/ At last, the right bus came around the corner and stopped. The driver, {M}, opened the door and held up something {C}. "[Is somebody looking for this {Q}?|Did you forget something?]" {M.he} asked.
"[My {Q}|You found it]!" shouted {A}. "[Thank you, thank you|You are the best driver in the world]!"
- {M} [tipped {M.his} cap|laughed]. "[It rode with me all around the town|It was a very quiet guest]," {M.he} said. "[Now it has seen more than you have|It even had the best seat]."
> At the {U}, {A} held the {C} {Q} [tightly|with both hands], and on the way home {he} [waved to|drew a picture for] {M}.
? What did {A} leave on the bus? = {Q}
? Who found it? = {M}
? Where did they want to go? = {U}
! who leaves a {C} {Q} on the bus
~ A Q M U

class pet: A=child Y=class_pet N=pet_name S=pet_food M=adult H=home
@meet In {his} class, there was a {Y} named {N}. On Fridays, one child could take {N} home. This week it was {A}'s turn! "[Give it fresh water and some {S}|It likes {S} best of all]," said {M}, the teacher. "And [always close the cage|do not forget to shut the little door]."
/ {A} [fed the {Y}|talked to {N}] all evening. But in the morning, the cage was open and {N} was gone! "[Oh no|I forgot to shut the door]!" cried {A}. [{He} felt hot and cold.|{His} heart sank.] "[What will {M} say|What will the class think of me]?"
/ {He} looked [in every shoe|behind every book] and in every corner. No {N}. {He} [called its name|crawled under the table]. Nothing. Then {A} stopped and thought. "[If I were a {Y}, where would I go|What does {N} love most]?" {he} asked {himself}. Of course!
/ {A} put some {S} on the floor and sat very still. [One minute passed, then five.|The clock ticked.] There was a tiny sound. First came a nose, then two bright eyes. {N} [came out from behind the stove|crept out of a slipper] and began to eat. Gently, {A} picked it up. "[You gave me such a fright|I am so glad to see you]," {he} whispered.
- On Monday, {A} told {M} everything. "[You could have said nothing|It takes courage to tell me that]," said {M}. "[Next time you will check the door twice|Thank you for being honest]."
> And so {A} learned two things: to shut the cage, and that {N} the {Y} would [do anything|come out of any hole] for {S}.
? What kind of animal was {N}? = {Y}
? What did {N} like to eat? = {S}
? Who was the teacher? = {M}
! who takes care of a {Y} named {N}
~ A N S Y
"""
