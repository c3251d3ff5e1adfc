"""Story shapes about children at home, at school and with friends. The notation is explained in stories.py."""

# ruff: noqa: E501

HOME = r"""
lost toy: A=child O=toy B=child C=color P=hiding Q=hiding H=home
@meet {His} favorite toy was a {C} {O}[ that {he} had got for {his} birthday|, and {he} took it everywhere| that {his} grandpa had given {him}].
/ @day {A} woke up and [could not find the {O}|saw that the {O} was gone|looked for the {O}, but it was not there]. {He} looked {Q}, but [it was not there|there was only dust|{he} found nothing but an old sock]. [Tears ran down {his} face.|{A} began to cry.|{A} felt [very |]sad.]
/ Just then, {his} friend {B} [came to visit|knocked on the door|came by]. "What is wrong, {A}?" asked {B}.
"I [lost|cannot find] my {C} {O}," said {A}. ["I have looked everywhere."|"I had it yesterday."|"It is my favorite toy."]
/ "[Do not worry|Do not cry]," said {B}. "[I will help you look for it|We will find it together|Two can look better than one]."
- They looked [high and low|in every room|all morning]. [They opened every box and every door.|They even looked inside the oven.|They moved the chairs and lifted the rug.]
Then {B} looked {P}. There it was! "[Is this your {O}?|Look what I found!]" {B} [asked with a smile|called|shouted].
/ "[Yes! Thank you|You found it! Thank you], {B}!" [cried|said] {A}. [{He} hugged the {O} tightly.|{He} jumped up and down with joy.|{He} was so happy that {he} danced around the room.]
> From that day on, {A} [never left {his} {O} {P} again|always put {his} {O} back on the shelf], and {he} [never forgot|always remembered] that {B} had [helped {him}|been such a good friend].
? What did {A} lose? = {O}
? Who helped {A} look for the {O}? = {B}
? What color was the {O}? = {C}
! who loses a {C} {O}
~ A/B A O B

broken thing: A=child X=fragile G=parent O=sturdy_toy H=home
@meet {He} loved to play with {his} {O}, [even inside the house|and {he} liked to run|from morning until night].
/ @day {A} was playing with {his} {O} in the [living room|kitchen|hall]. "[Be careful|Please play outside]," {his} {G} [had said|had told {him}], but {A} [forgot|did not listen]. {He} [bumped into the wall|turned around too fast|ran too fast]. The {X} {X.break}!
/ {A}'s heart [beat fast|began to pound]. "[Oh no!|What have I done?]" {he} [whispered|thought]. [{He} wanted to hide the pieces.|For a moment, {he} thought about running away.|{He} thought about saying that the cat did it.] But {A} knew that [it would be wrong to lie|a lie would only make things worse|it was better to tell the truth].
/ {He} went to {his} {G} and said, "[I am sorry, {G.call}|{G.call}, I have to tell you something]. I broke the {X}. [It was my fault|I was playing inside]."
/ {^his} {G} [was quiet for a moment|looked at the pieces|sighed] and then gave {him} a hug. "[I am sad about the {X}|A {X} is only a thing], but I am [glad|proud] that you told me the truth," {G.he} said.
- Together they [swept up the pieces|cleaned the floor|picked up every piece]. [{A} felt much better.|It did not take long.]
> [After that|From then on], {A} only played with {his} {O} outside, and {he} [always told {his} {G} the truth|was always honest with {his} {G}].
? What did {A} break? = {X}
? Who did {A} tell the truth? = {G}
? What was {A} playing with? = {O}
! who breaks a {X}
~ A O G

shared lunch: A=child S=snack B=child T=kind_trait K=result H=home
@meet {He} was {T} and {T.line}.
/ [At school|At noon], it was time for lunch. {A} opened {his} lunch box and [saw|found] a {S} inside. It [smelled so good|looked wonderful|was {his} favorite]. Then {he} saw {B} sitting alone [by the window|at the end of the table|under a tree].
/ "[Why are you not eating|What is the matter], {B}?" asked {A}.
"I [forgot|left] my lunch at home," said {B} [in a small voice|sadly]. {B.His} stomach [growled|rumbled] [loudly|like a bear].
/ {A} looked at {his} {S}. {He} was hungry too. But {he} [smiled|sat down beside {B.him}] and said, "[We can share|You can have half of mine|Half for you and half for me]."
{B}'s [eyes lit up|face broke into a smile]. "Thank you, {A}! [You are so kind|I will not forget this]," {B.he} said.
- They [ate together|ate every crumb] and talked about [dinosaurs|the stars|their favorite games|pirates]. [They laughed so much that their sides hurt.|It was the best lunch of the week.]
/ The next [day|week], it [was {A} who had|happened that {A} had] no lunch. {B} [came running|sat down next to {him}] with a big bag. "[Now it is my turn to share|Today we share mine]," said {B}.
> [From that day on|After that], {A} and {B} ate lunch together every day, and a {S} [always tasted better|tasted twice as good] when they shared it.
? What was in {A}'s lunch box? = {S}
? Who forgot lunch? = {B}
? Who shared lunch with {B}? = {A}
! who shares a {S}
~ A B S

learning: A=child J=skill G=elder H=home
@meet More than anything, {A} wanted to learn how to {J}. [All {his} friends could do it.|{He} dreamed about it every night.|{He} watched the older children and wished {he} could do it too.]
/ @day {A} tried for the first time. {He} {J.fail}. "[This is too hard|I will never learn it|I give up]!" {he} [cried|shouted|said with tears in {his} eyes].
/ {^his} {G} came over and sat down [next to|beside] {him}. "When I was [little|your age], I could not do it [either|at all]," {G.he} said. "[I had to try a hundred times|Everyone has to start small|You only fail if you stop trying]. [Try again|One more time], {A}."
/ So {A} tried again the next day, and the day after that. [Each day it went a little better.|Sometimes it went well and sometimes it did not.|{His} arms were tired, but {he} did not stop.] {^his} {G} [clapped|cheered|smiled] every time.
- [Some of the other children laughed, but {A} did not mind.|One evening it rained, and still {A} kept going.|{He} even practiced before breakfast.]
/ [Then, one bright morning|After two weeks|At last, on a Sunday], {A} took a deep breath and began. This time, {he} {J.win}! "[I did it|Look at me], {G.call}!" {he} [shouted|called out|cried].
"[I knew you could|You never gave up|I am so proud of you]," said {his} {G}.
> {A} [had learned|now knew] that {J.ing} [takes time|is not learned in a day], and {he} [thanked {his} {G}|gave {his} {G} a big hug] for [never giving up on {him}|helping {him} to keep trying].
? What did {A} want to learn? = {J}
? Who helped {A}? = {G}
! who wants to learn how to {J}
~ A J G

new child: A=child B=child O=toy C=color T=kind_trait H=home
@meet {He} was {T}, and {he} {T.line}.
/ @day a new {B.kind} came to {his} class. "This is {B}," said the teacher. "[Please make {B.him} feel welcome|{B.He} has just moved here]." {B} looked down at {B.his} shoes and [said nothing|did not say a word|blushed].
/ At [playtime|recess], [everybody ran outside|the children ran out to play]. {B} [stood alone by the fence|sat alone on a bench|stayed near the door] and [held|hugged] a {C} {O}. {A} [remembered how it felt to be new|thought that {B.he} looked lonely|saw {B.him} and stopped].
/ {A} walked over. "Hello, I am {A}. [I like your {O}|What a nice {O}]," {he} said. ["Will you show me how it works?"|"May I play with you?"|"Is it yours?"]
/ {B} looked up. "[You can play with it if you like|It is my favorite thing]," {B.he} said [shyly|softly|in a quiet voice]. Soon the two of them were playing with the {O} and laughing.
- [Other children came to see what was so funny.|A few more children joined in.|The teacher watched them and smiled.] [Nobody wanted to go back inside.|Before long, half the class was playing together.]
/ When the bell rang, {B} was not shy anymore. "[Can we play again tomorrow|Will you be my friend]?" {B.he} asked.
> "[Of course|Yes, every day]!" said {A}, and [that was how|from then on] {A} and {B} became [best friends|good friends] who [always shared the {C} {O}|played with the {C} {O} every day].
? Who was new in the class? = {B}
? What did {B} hold? = {O}
? Who became friends with {B}? = {A}
! who meets a new {B.kind} named {B}
~ A B O

found pet: A=child Y=lost_pet M=adult C=color P=outside H=home
@meet {He} loved animals, [big and small|and animals loved {him}|but {he} did not have a pet].
/ @day {A} heard a strange sound. It came from [{P}|somewhere {P}]. {A} [looked closer|bent down to see]. It was a [little|tiny|small] {Y} with a {C} [ribbon|collar] around its neck! The {Y} was [wet and cold|shaking|all alone and hungry].
/ "[You poor thing|Hello, little one]," said {A}. "[Are you lost|Where is your home]?" The {Y} {Y.sound} [softly|sadly]. {A} [wrapped it in {his} sweater|gave it some water|held it gently in {his} arms].
/ {A} wanted to keep the {Y} [very much|more than anything]. But {he} thought, "[Somebody must be missing it|Someone is surely looking for it and crying]." So {he} [went from door to door|knocked on every door in the street|asked everybody in the street].
- [Nobody knew the {Y}.|At the first house, nobody was home.|The baker shook his head, and so did the mailman.] {A} did not give up.
/ At the last house, {M} opened the door. "[My {Y}|Oh, you found my {Y}]!" {M.he} cried. "[I have been looking for it all day|I was so worried|I thought I would never see it again]!" The {Y} {Y.sound} and [jumped into {M.his} arms|licked {M.his} nose|ran to {M.him}].
/ {A} was [a little sad|sorry to say goodbye], but [also happy|{he} knew it was right]. "[You are a good {A.kind}|Thank you for being so kind]," said {M}.
> After that, {A} [visited|went to see] {M} every [week|Saturday] to play with the {Y}[, and they all became friends|, and nobody was lonely anymore].
? What animal did {A} find? = {Y}
? Who did the {Y} belong to? = {M}
? What color was around the neck of the {Y}? = {C}
! who finds a {Y}
~ A M Y

garden: A=child N=seed G=elder H=home
@meet In spring, {his} {G} gave {him} a [tiny|small] {N} seed. "[Plant it and take good care of it|Be patient, and it will surprise you]," {G.he} said.
/ {A} dug a little hole, put the seed inside and covered it with [soft|dark|warm] earth. [Every day|Every morning], {he} gave it some water.
/ [A week passed, and nothing happened.|After three days, {A} could see nothing but earth.|Days went by, but nothing came out of the ground.] "[Is it asleep|Why does it not grow|Is my seed broken], {G.call}?" asked {A}.
"[It is growing where you cannot see it|Good things take time|A seed has to wake up first]," said {his} {G}. "[Wait and see|You must be patient]."
/ So {A} waited. [The rain came and the sun came.|{He} pulled out the weeds and chased away the snails.|{He} sang to the seed and told it stories.] Then, one morning, there was a tiny green leaf! "{G.call}, come quickly! [It is growing|My {N} is awake]!" {A} shouted.
- [The plant grew and grew.|Soon it was as tall as {A}.|The bees came to look at it.] [{A} measured it every Sunday.|Every day it looked a little different.]
/ By summer, {A} had {N.plural} {N.end}. [All the neighbors came to look.|It was the prettiest thing in the garden.]
> {A} [gave|carried] the first {N} to {his} {G}, because {G.he} had taught {him} [to be patient|how to wait].
? What did {A} plant? = {N}
? Who gave {A} the seed? = {G}
! who plants a {N} seed
~ A N G

birthday: A=child B=child I=gift C=color G=parent H=home
@meet Today was {his} birthday, and {he} woke up [very early|with a big smile|before the sun came up]. But nobody said anything about it.
/ At breakfast, {his} {G} only [read the newspaper|talked about the weather|said good morning]. At school, {his} friend {B} [did not say a word about it|talked about homework|seemed to be busy]. "[Did everyone forget my birthday|Does nobody remember]?" thought {A}. {He} felt [lonely|sad and small|a lump in {his} throat].
/ After school, {A} walked home [slowly|with {his} head down]. The house was dark [and quiet|and still]. {He} opened the door and [turned on the light|stepped inside].
/ "Surprise!" shouted [everybody|all {his} friends]. There were {C} balloons [everywhere|on every chair] and a [big|tall] cake with candles. [{B} threw paper stars into the air.|{B} began to sing, and everybody sang along.]
/ "[You did not forget|You remembered]!" cried {A}.
"[How could we forget?|We would never forget,]" said {his} {G}. "[We wanted to surprise you|It was hard to keep the secret]." Then {B} gave {A} a [big|large] box with a {C} bow. Inside was a {I}!
- [They played games and ate cake until it was dark.|They danced and laughed all afternoon.|{A} blew out all the candles at once.] [{A} could not stop smiling.|It was a wonderful party.]
> That night, {A} fell asleep next to {his} new {I} and thought that {B} was the [best friend in the world|kindest friend of all].
? What was in the box? = {I}
? Who gave {A} the box? = {B}
? What color were the balloons? = {C}
! who gets a {I}
~ A/B A I B

rainy day: A=child B=sibling V=indoor U=outing H=home
@meet {He} and {his} {B} had waited all week for [the|their] {U}. But when they woke up on Saturday, it was raining. [The rain ran down the windows.|Big drops fell from the gray sky.|There were puddles everywhere.]
/ "[No {U} today|We cannot go now]," said {his} {B} [sadly|with a long face]. "[This day is ruined|I hate the rain|It is not fair]."
{A} looked out of the window for a while. [Then {he} had an idea.|Suddenly, {his} eyes began to shine.] "[Who needs the sun?|We can have fun inside,]" {he} said. "We can make {V}!"
/ They [ran around the house|went to work at once] and [looked for everything they needed|collected pillows, paper and string]. [It took them all morning.|Sometimes it went wrong, and they had to start again.|They argued a little and laughed a lot.] [At last|By noon], it was ready.
- Their [mom|dad] came in with [hot chocolate|a plate of cookies|warm milk] and said, "[What a wonderful idea|I have never seen anything like it]!"
/ {^his} {B} [laughed out loud|clapped and cheered|could not stop smiling]. "[I forgot all about the rain|This is better than the {U}]," {B.he} said.
> In the end, {A} and {his} {B} {V.end}, and [neither of them|nobody] [missed|thought about] the {U} anymore.
? What did {A} want to make? = {V}
? Why could they not go on the {U}? = raining
! who makes {V}
~ A V U

baking: A=child Z=bakery G=elder H=home
@meet On Sundays, {A} [helped|liked to help] {his} {G} in the kitchen. "[Today we are making a special {Z},|What about a {Z} today?]" said {his} {G} one Sunday.
/ They [washed their hands|put on their aprons] and [took out the big bowl|turned on the oven]. {A} [mixed and stirred|stirred and stirred] until {his} arms were tired. [There was flour on {his} nose.|{He} licked the spoon when nobody was looking.]
/ When the {Z} was ready, they [tasted it|each took a bite]. [It tasted strange.|Something was wrong.] "[Oh dear|Oh no]," said {A}. "We forgot the {Z.need}!"
{A} was [close to tears|very disappointed]. "[I ruined it|It was my job to add it]," {he} said.
/ But {his} {G} only [laughed|smiled]. "[Everybody makes mistakes|A mistake is how we learn]," {G.he} said. "[Let us try again|We have time to make another one]."
So they began again. This time, {A} [read every line aloud|checked the list twice], and {he} did not forget the {Z.need}. [Soon a wonderful smell filled the house.|The kitchen grew warm and smelled sweet.]
- [The neighbors smelled it and came to the window.|Even the cat came to see.|They set the table with the blue plates.]
"[This is the best {Z} in the world|Now it is perfect]!" said {his} {G}.
> {A} [ate|had] two big pieces of the {Z}, and {he} and {his} {G} never forgot the {Z.need} again.
? What did {A} and {his} {G} forget? = {Z.need}
? What did they make? = {Z}
? Who baked with {A}? = {G}
! who bakes a {Z}
~ A Z G

night noise: A=child L=noise G=parent O=sturdy_toy H=home
@meet {He} was afraid of the dark. [Every night, {he} slept with a little lamp.|At night, every shadow looked like a monster.|{He} did not like to go to bed.]
/ One night, {A} woke up. {^L.sound}. What was that? {He} pulled the blanket over {his} head and [held|hugged] {his} {O}. {^L.sound}. There it was again! [{His} hands were shaking.|{He} did not dare to breathe.|{His} heart beat like a drum.]
/ "{G.call}!" {A} [called|cried]. "[There is a monster|Something is in the house]!"
{^his} {G} came in with a [flashlight|candle] and sat on the bed. "[Let us find out together|Let us go and look]," {G.he} said. "[Brave people are afraid too|Being brave means looking even when you are scared]." {A} took {his} {O} under one arm and took {his} {G}'s hand.
/ They [walked slowly through the dark house|went step by step down the hall] and listened. {^L.sound}. [{A} wanted to run, but {he} stayed.|{A} swallowed hard and looked.] Then {he} [began to laugh|laughed out loud]. It was only {L}!
- "[That is not a monster at all|You were right to look]," {A} said. [{His} knees stopped shaking.|Now the sound was almost funny.]
> {A} went back to bed with {his} {O}, and [from that night on|after that], when {he} heard a noise, {he} [was not afraid, because it was only {L}|remembered {L} and smiled].
? What made the noise? = {L}
? Who came with a light? = {G}
? What did {A} hold? = {O}
! who hears a noise and holds a {O}
~ A L O

contest: A=child E=event R=result G=parent B=child H=home
@meet {He} had [practiced for weeks|been looking forward to this day for a month]. Today was the big {E}.
/ "[What if I lose, {G.call}?|I am so nervous, {G.call}. What if I lose?]" asked {A}.
"[Just do your best|Have fun, that is what matters]," said {his} {G}. "[I will be there to watch you|I will love you either way]."
/ {A} looked around. [There were so many people.|All the seats were full.|Flags were waving everywhere.] {His} friend {B} was in the {E} too. "[Good luck, {A}|May the best one win]," said {B}, and they shook hands.
/ [A whistle blew|A bell rang], and the {E} began. {A} {E.do}. [The crowd clapped and cheered.|{He} did not look left or right.|{He} could hear {his} own heart.] [Soon|Much too soon], it was over.
/ In the end, {A} {R}. {R.tell} {he} told {his} {G}. [The judge gave {him} {R.prize}.|{A} got {R.prize}.] {He} felt {R.feel}.
- "[You did your best|You worked so hard], and that is what counts," said {his} {G}. [{B} came over and gave {A} a hug.|{B} patted {A} on the back.]
> That evening, {A} put {R.prize} [next to {his} bed|on the wall]. {He} was still {R.feel}, and {he} [wanted|planned] to [enter|practice for] the next {E} [with|together with] {B}.
? What was {A} in? = {E}
? How did {A} feel at the end? = {R.feel}
? What did {A} get? = {R.prize}
! who is in a {E}
~ A R E

sick friend: A=child B=child F=soup V=drawn C=color H=home
@meet {His} best friend was {B}. [They did everything together.|They sat side by side at school.|They walked to school together every day.]
/ @day {B} was not at school. "[{B} is sick|{B} has a fever and must stay in bed]," said the teacher. {A} [was worried|missed {B.him} all day|could not think about anything else].
/ After school, {A} ran home and made some {F}. {He} also [drew|painted] a [funny|big|cheerful] card with {C} {V} on it. Then {he} walked [through the wind|down the street|across the bridge] to {B}'s house.
/ {B} was lying in bed with [a red nose|a thick scarf around {B.his} neck|three pillows behind {B.his} back]. "[You came!|Is that you, {A}?]" {B.he} said in a [weak|hoarse] voice.
"I brought you some {F}," said {A}. "[It will make you feel better|My grandma says it helps with everything]." {B} [tried a little|tasted it] and smiled [for the first time that day|a little].
- {A} sat by the bed and [told {B.him} about school|read {B.him} a story|told {B.him} jokes]. [{B} laughed until {B.he} had to cough.|The time went by very fast.]
/ [After a few days|Three days later], {B} was well again. {B.He} [ran|hurried] straight to {A}. "[Your visit was the best medicine|You are a real friend]," {B.he} said.
> {B} kept the card with the {C} {V} above {B.his} bed, to remember the day when {A} had come with {F}.
? Who was sick? = {B}
? What did {A} bring? = {F}
? Who visited {B}? = {A}
! who visits a sick friend named {B}
~ A/B A B F

messy room: A=child O=keepsake P=room_spot G=parent C=color H=home
@meet {He} never cleaned up {his} room. [There were socks on the lamp and books on the floor.|Toys, clothes and papers lay everywhere.|You could not even see the floor.]
/ "Please clean your room, {A}," said {his} {G} every day.
"[Later|Tomorrow|I am too busy]," said {A} every time.
/ @day {A} wanted to take {his} {C} {O} to school. {He} [had promised to show it to {his} class|needed it for the class]. But where was it? {He} looked [under the books|between the clothes|behind the toys]. {He} [threw things left and right|crawled over the floor]. [The {O} was gone.|There was no {O} anywhere.]
/ "{G.call}, help me!" cried {A}. "[I cannot find my {O}|My {O} has disappeared]!"
"[It must be under all these things|I think your room ate it]," said {his} {G}. "[Put everything in its place, and you will find it|Clean up, and it will turn up]."
/ So {A} [began to clean|went to work]. {He} put the books on the shelf, the clothes in the closet and the toys in the box. [It took a long time.|It was hard work.] And then, {P}, [something was shining|{he} saw something {C}]. It was the {O}!
- "[Look|Hooray], {G.call}, I found it!" {A} shouted. {^his} {G} looked around. "[And I found your floor|I had forgotten that you have a rug]," {G.he} said, and they both laughed.
> From then on, {A} cleaned {his} room every [week|Friday], and the {C} {O} always [had its own place|lay in its own little box].
? What could {A} not find? = {O}
? What color was the {O}? = {C}
? Who told {A} to clean the room? = {G}
! who loses a {C} {O} in a messy room
~ A O C

stuck in a tree: A=child O=tree_toy B=child C=color I=idea T=kind_trait H=home
@meet {He} was {T} and {T.line}.
/ @day the wind was strong. {A} and {his} friend {B} went to the [hill|park|field] to play with {A}'s {C} {O}. They [laughed and ran|had a lot of fun]. Then a [sudden|strong] wind came and carried the {O} up into a tall tree.
/ "Oh no, my {O}!" cried {A}. {He} jumped, but the branch was too high. {B} [threw a stick, but it missed|shook the tree, but nothing fell down]. "[We will never get it back|It is stuck]," said {B}.
/ {A} sat down and [thought hard|thought for a while]. "I have an idea," {he} said. "{I}."
{B} [nodded|smiled]. "[That could work|Let us try it]!"
/ They tried it at once. [It was not easy.|They had to be careful.|The first time it went wrong.] [Then|At last], {I.then}, and the {O} came down [slowly|gently] and landed [right in front of them|in the grass|at their feet]. "[Hooray|We did it]!" they shouted.
- [An old man on a bench clapped his hands.|A bird in the tree looked at them with surprise.] "[Two heads are better than one|That was clever]," said {B}.
> {A} [brushed the leaves off the {C} {O}|held the {C} {O} tightly] and walked home with {B}[, who told everyone about the clever idea|, and they both felt very clever].
? What got stuck in the tree? = {O}
? Who had an idea? = {A}
? Who was with {A}? = {B}
! whose {O} is stuck in a tree
~ A/B A O B C

snow day: A=child B=sibling W=wear C=color K=snow_nose H=home
@meet In the morning, the world was white. It had snowed all night! "[Snow! Snow|Wake up, it snowed]!" {A} shouted. {He} and {his} {B} put on their [boots|gloves] and ran outside.
/ "[Let us build a snowman|I want to build the biggest snowman in the world]," said {A}. They rolled a big ball, a middle ball and a small ball. [Their fingers were cold, but they did not stop.|Their cheeks turned red.|It was hard work to lift them.]
/ The snowman needed a nose. {A} ran into the kitchen and came back with a {K}. [They used two stones for his eyes.|Two black buttons became his eyes.] "[He still looks cold|Something is missing]," said {his} {B}. So {A} took off {his} own {C} {W} and [gave it to the snowman|put it on the snowman]. [Now he looked very fine.|The snowman seemed to smile.]
- They threw snowballs and [made angels in the snow|slid down the hill] until [it was dark|their mom called them]. [Then they drank hot chocolate by the fire.|Inside, a warm supper was waiting.]
/ A few days later, the sun [came out|was warm]. The snowman became [smaller and smaller|thinner and thinner]. [At last|One morning], he was gone. Only the {K} and the {C} {W} were lying in the wet grass. {A} [felt a little sad|had tears in {his} eyes].
"[He will come back next winter|Snow always comes back]," said {his} {B}.
> {A} [picked up|took] {his} {C} {W} and [smiled|nodded]. "[Next winter, the {K} will be ready|I will keep a {K} for him]," {he} told {his} {B}.
? What was the nose of the snowman? = {K}
? What did {A} give to the snowman? = {W}
? What color was the {W}? = {C}
! who gives a {C} {W} to a snowman
~ A K W

market: A=child S=fruit G=parent M=adult N=coins H=home
@meet @day {his} {G} gave {him} some money and a basket. "Please go to the market and buy some {S}," {G.he} said. {A} was proud, because {he} had never gone alone before.
/ The market was [full of people|loud and full of colors]. [There was cheese, bread and fish.|People were calling and laughing.] At last, {A} found {M}, who sold {S}. "[How many would you like|What can I do for you]?" asked {M}.
"{^N.many}, please," said {A}. {He} [paid|gave {M.him} the money] and [got some coins back|{M} gave {him} the change].
/ On the way home, {A} counted the coins. [Something was wrong.|{He} counted them twice.] {M} had given {him} {N} too [many|many by mistake]! "[I could buy candy with that|Nobody would ever know]," thought {A}. [{He} stopped in front of the candy shop.|{He} could already taste the candy.] But then {he} shook {his} head. "[It is not mine|That would be wrong]," {he} said.
/ {A} [ran all the way back|turned around and went back]. "[Excuse me|Wait], {M}, you gave me too much," {he} said and [held out the coins|put {N} on the table].
{M} [was surprised|smiled warmly]. "[Not many people would come back|An honest {A.kind} is worth more than gold]," {M.he} said. "[Take these|Here are some extra] {S} as a present."
- When {A} told {his} {G} [the story|what had happened], {G.he} [gave {him} a kiss|hugged {him}]. "[I am proud of you|You did the right thing]," {G.he} said.
> That evening, {A} and {his} {G} ate the {S} from {M}, and [{A} thought that they|they] [had never tasted so sweet|tasted sweeter than any candy].
? What did {A} buy? = {S}
? Who sold the {S}? = {M}
? Who sent {A} to the market? = {G}
! who buys {S} at the market
~ A S M

stage fright: A=child D=show G=elder B=child H=home
@meet {He} was shy. [{He} never spoke in class.|{His} voice became very small when people looked at {him}.] So when the teacher said, "{A}, you will be {D.role} in {D}," {A} [turned red|wanted to hide].
/ {He} had only one line to say. It was {D.line} {A} said it in the bath. {He} said it to {his} {G}. {He} even said it to the [cat|goldfish|mirror].
/ On the big day, {A} stood behind the curtain and [looked out|peeked through]. [So many faces!|There were more than a hundred people!] {His} knees [shook|felt like jelly]. "[I cannot do it|I forgot my line]," {he} whispered.
{B} [took|squeezed] {his} hand. "[I am scared too|Look for one friendly face]," {B} said. "[Just breathe|We will do it together]."
/ {A} looked again. There in the [front|second] row sat {his} {G}, smiling [at {him}|warmly]. {A} took a deep breath, stepped out and [called|said] in a clear voice, {D.line} [Everybody clapped.|The people cheered and clapped.|It was perfect.]
- After {D}, {his} {G} came with [flowers|a bunch of flowers]. "[I heard every word|You were wonderful, {A}]," {G.he} said.
> [Now|After that day], {A} was not so shy anymore, and {he} always remembered how {he} had been {D.role} and how {B} had [helped {him}|held {his} hand].
? What was {A} in {D}? = {D.role}
? Who helped {A} behind the curtain? = {B}
! who is {D.role} in {D}
~ A/B A D B

lost in a crowd: A=child U=crowded G=parent M=adult C=color W=wear H=home
@meet @day {he} went to the {U} with {his} {G}. "[Stay close to me|Hold my hand]," said {his} {G}. [It was very busy that day.|There were people everywhere.]
/ {A} saw [a man with balloons|a funny clown|a brown dog with a hat|a bird in a cage] and stopped to look. When {he} turned around, {his} {G} was gone! [{A} looked left and right.|{A} saw only strange legs and bags.] "{G.call}? {G.call}!" {he} called, but nobody answered. [{A} was scared.|{His} eyes filled with tears.]
/ Then {A} remembered what {his} {G} always said. "[If you get lost, stay where you are|If you get lost, do not run around]." So {he} [stood still|sat down on a bench] and [waited|took a deep breath].
/ A friendly {M.woman} in a {C} {W} came by. "[Are you lost|Why are you crying]?" {M.he} asked. "My name is {M}, and I work here. [What does your {G} look like?|We will find your {G}.]"
{A} [told {M.him} everything|wiped {his} eyes and told {M.him}]. {M} [spoke into a big microphone|called out in a loud voice]. [A minute later|Soon], {his} {G} came running. "[There you are|I looked everywhere for you]!" {G.he} cried and [hugged {A} tightly|lifted {A} up into the air].
- "[I stayed where I was, just as you told me|I did not run around]," said {A}. "[That was very clever|You did just the right thing]," said {his} {G}.
> They both thanked {M} in the {C} {W}, and {A} held {his} {G}'s hand [all the way home|until they left the {U}].
? Where did {A} get lost? = {U}
? Who helped {A}? = {M}
? Who came running? = {G}
! who gets lost at the {U}
~ M A C

neighbor help: A=child M=adult Q=job T=kind_trait H=home
@meet Next door lived an old {M.woman} called {M}. {M} [walked with a stick|had a bad back|could not bend down anymore].
/ @day {A} saw {M} in front of the house. {M.He} was trying to {Q}, but {M.he} had to stop [again and again|after every minute]. "[My old bones are tired|I am not as strong as I used to be]," {M.he} said [with a sigh|and sat down].
/ {A} had wanted to [play soccer|ride {his} bike|meet {his} friends]. But {he} was a {T} {A.kind}, so {he} [ran over|put down {his} things] and asked, "May I help you, {M}?"
"[That would be wonderful|How nice of you to ask]," said {M}, and {M.he} gave {A} the {Q.tool}.
/ {^Q.ing} was [hard work|harder than it looked]. [{A}'s hands became red.|Soon {A} was hot and dirty.|The sun was hot.] But {he} did not stop until [everything was done|the work was finished]. {M} brought {him} [a glass of cold milk|a piece of cake|some lemonade] and told {him} [stories from long ago|how the town looked in the old days].
- "[When I was young, I sailed around the world|I once had a horse that could count]," {M.he} said. [{A} listened with big eyes.|{A} wanted to hear more and more.]
/ When {A} got home, {he} was [tired|very tired], but {he} felt [warm inside|happy]. [Helping had been more fun than playing.|{He} had made a new friend.]
> After that, {A} came every [week|Saturday] with the {Q.tool} to help {M}, and {M.he} always had [a new story|a good story] for {him}.
? Who did {A} help? = {M}
? What was {M} trying to do? = {Q}
? What did {M} give to {A}? = {Q.tool}
! who helps {M}
~ A/M A M Q
"""
