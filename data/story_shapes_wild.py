"""Story shapes about animals: fables with a small lesson. The notation is explained in story_grammar.py."""

# ruff: noqa: E501

WILD = r"""
small helps big: A=small_animal B=big X=trap H=den
@meet {He} was so small that [nobody noticed {him}|the other animals often forgot {him}|{he} could sleep in a shoe].
/ @day {A} was [looking for food|running home] when {he} [ran into|bumped into] {B}, the big {B.kind}. "[Watch where you are going|Look out], little one!" [growled|grumbled] {B}.
"I am sorry. Please let me go," said {A}. "[One day, I may help you|Perhaps I can do something for you one day]."
{B} [laughed|laughed until the trees shook]. "[You? Help me?|How could someone so small help me?]" {B.he} said. But {B.he} let {A} go.
/ [A few days later|Not long after that], {A} heard a cry for help. {B} was [caught|stuck] in {X}! {B.He} [pulled and kicked|tried with all {B.his} might], but {B.he} could not get out. "[Do not be afraid|Hold still], {B}," said {A}. "I am coming!" And {A} {X.free}.
- [It took a long time, and {A}'s teeth and paws hurt.|The other animals ran away, but {A} stayed.] [{He} did not stop until it was done.|The moon came up, and {he} was still working.]
/ At last, {B} was free. "[I laughed at you, and I was wrong|I should not have laughed]," said {B}. "[You are small, but your heart is big|Thank you, my little friend]."
> From that day on, {B} the {B.kind} and {A} the {A.kind} were friends, and {B} often told the story of {X.the} and [how {A} had saved {B.him}|the little friend who had saved {B.him}].
? Who was stuck in {X}? = {B}
? Who helped {B}? = {A}
? What kind of animal was {B}? = {B.kind}
! who helps a {B.kind} named {B}
~ A/B A B X

winter food: A=animal B=animal N=nut H=den
@meet All summer long, {he} [gathered {N} and carried them home|worked hard and filled {his} home with {N}].
/ {His} neighbor {B} the {B.kind} [lay in the sun|sang songs by the river] all day. "[Come and play, {A}!|Why do you work so much, {A}?]" {B.he} [called|shouted]. "[Winter is far away|The sun is shining]!"
"Winter comes faster than you think," said {A}. "[You should gather some {N} too|Soon there will be no more {N}]." But {B} only [laughed|yawned].
/ Then the leaves fell, and [the first snow came|a cold wind blew]. {A} sat in {his} warm home with [plenty of|a whole room full of] {N}. {B} had nothing to eat. {B.He} [looked under the snow|looked everywhere], but there was [nothing left|only ice]. [Cold|Shaking] and hungry, {B.he} knocked on {A}'s door.
/ "[Please|I was foolish, {A}]," said {B}. "[Could you give me something to eat?|I am so hungry.] [I should have listened to you|I played all summer, and now I am sorry]."
{A} [thought for a moment|looked at {B}'s thin face] and opened the door. "[Come in and get warm|There is enough for two]," {he} said. "[But next summer, you must help me|Next summer we will work together]."
- So {B} [stayed|moved in] until spring, and [in the evenings {B.he} sang for {A}|{B.he} paid for {B.his} dinner with songs]. [It was the happiest winter of all.|{A} had never laughed so much.]
> When summer came again, {B} was the first to get up, and {A} and {B} gathered {N} [side by side|together], [and then they rested in the sun together|with a song].
? What did {A} gather? = {N}
? Who was lazy? = {B}
? Who shared food with {B}? = {A}
! who gathers {N} for winter
~ A/B A B N

boast race: A=slow B=swift J=place_far H=den
@meet {He} was slow, but {he} never [gave up|stopped once {he} had started]. In the same place lived {B}, a {B.kind} who could run [like the wind|faster than anyone].
/ "[Nobody is as fast as I am|I am the fastest of all]," {B} [said every day|liked to say]. "[And you, {A}, are the slowest.|Do you ever get anywhere, {A}?]"
{A} [had heard enough|smiled]. "Let us race to {J}," {he} said.
/ All the animals came to watch. [An owl|An old crow] counted to three, and off they went. {B} was out of sight [at once|in a moment]. Halfway to {J}, {B.he} looked back. "[{A} is so slow that I can take a nap|I have time for a little sleep]," said {B}, and {B.he} lay down [under a tree|in the soft grass].
/ {A} went on, step by step. [The sun was hot and the road was long, but {he} did not stop.|{His} feet hurt, but {he} kept going.] {He} passed {B}, who was [snoring|fast asleep]. The animals [began to cheer|could not believe it].
- When {B} woke up, the sun was low. [{B.He} ran faster than ever before.|{B.He} jumped up and ran and ran.] [But it was too late.|But {A} was far ahead.]
/ {A} had already reached {J}! "[How is this possible?|But I am faster than you!]" cried {B}.
"[Being fast is no use if you stop|You were fast, but I did not stop]," said {A}.
> After the race to {J}, {B} [never laughed at|never made fun of] {A} the {A.kind} again.
? Who won the race? = {A}
? Who took a nap? = {B}
? Where did they race to? = {J}
! who races against a {B.kind} named {B}
~ A/B A B J

greedy: A=paw_animal F=feast B=paw_animal H=den
@meet {He} loved {F} [more than anything|so much that {he} dreamed about them]. {He} never shared them with anybody.
/ @day {A} [found|discovered] a [hole in a wall|small gap in a fence]. Behind it was a garden full of {F}! {A} [squeezed through|pushed {his} way in] and began to eat. "[All for me|Mine, all mine]!" {he} said with {his} mouth full.
/ {B} the {B.kind} came by and looked in. "[May I have a few too|Could you pass me some {F}], {A}?" {B.he} asked. "[I am so hungry|They smell so good]."
"No," said {A}. "[I found them first|They are all mine]." And {he} ate and ate until {his} belly was as round as a [ball|drum].
/ Then {A} wanted to go home. But {he} was too fat for the hole! {He} pushed and pulled. [{His} head was out, but {his} belly was stuck.|{He} could not go forward or back.] "[Help|Help me], please!" {he} cried.
{B} heard {him} and came back. {B.He} took {A}'s paws and pulled [and pulled|with all {B.his} strength]. [Pop!|With a loud pop,] {A} was free[ and rolled down the hill|].
- {A} was ashamed. "[I was greedy, and you helped me anyway|I did not give you anything, and still you came back]," {he} said. "[I am sorry|Thank you], {B}."
> The next day, {A} picked a basket of {F} and [ate|shared] them [together |]with {B}, and they tasted better than all the {F} {he} had eaten alone.
? What did {A} eat? = {F}
? Who helped {A} out of the hole? = {B}
? What kind of animal was {B}? = {B.kind}
! who eats too many {F}
~ A/B A F B

false alarm: A=animal M=hunter B=animal H=den
@meet {He} had to watch [the path|the edge of the forest] and call out when there was danger. But it was boring to sit there all day.
/ @day {A} had an idea. "{^M}! {^M}! A {M} is coming!" {he} shouted. All the animals [dropped everything|stopped their work] and ran to hide. But there was no {M}. {A} [laughed and laughed|fell over laughing]. "[It was only a joke|You should see your faces]!" {he} said.
{B} the {B.kind} was [angry|not amused]. "[That is not funny, {A}|Do not do that again]," {B.he} said.
/ The next day, {A} did it again. "A {M}! A {M}!" [Everyone ran|The animals came running], and again there was no {M}. "[Next time, nobody will believe you|One day you will be sorry]," said {B}.
/ And then, one evening, a real {M} [came out of the shadows|stood before {A}]. {A}'s heart [stopped|jumped]. "{^M}! {^M}!" {he} screamed. "[This time it is true|Please believe me]!" But [nobody came|nobody moved]. "[It is just {A} again|Another one of {A}'s jokes]," said the animals.
/ {A} ran as [fast as|quickly as] {he} could. The {M} was right behind {him}. [At the last moment|Just in time], {B} opened {B.his} door and pulled {him} inside. "[I saw the {M} from my window|I looked out, just to be sure]," said {B}.
- {A} was shaking all over. "[If you had not opened the door, I would be lost|You saved me]," {he} whispered.
> After that, {A} [told only the truth|never played that joke again], and when {he} called "{^M}!" {B} [and all the others|and the other animals] believed {him}.
? What animal did {A} shout about? = {M}
? Who opened the door for {A}? = {B}
? What kind of animal was {A}? = {A.kind}
! who shouts that a {M} is coming
~ A/B A M B

sly fox: A=bird S=morsel F=animal_name H=den
@meet @day {he} found a {S} and flew up to a high branch with it. {He} held the {S} in {his} beak and [was looking forward to it|was very pleased].
/ A fox named {F} [came by and looked up|smelled it and stopped]. "[That looks tasty|I want that {S}]," thought {F}. "[But how do I get it?|But I cannot climb.]" Then {F.he} had an idea.
/ "[Good morning|Hello], {A}!" called {F}. "[What beautiful feathers you have|How bright your eyes are today]! [I am sure your voice is just as beautiful|People say that nobody sings as well as you do]. [Will you sing for me?|Please sing a little song.]"
/ {A} was [flattered|very proud]. Nobody had ever asked {him} to sing. {He} opened {his} beak and began. At once, the {S} fell down, and {F} [caught it|snapped it up]. "[Thank you for the song, and for the {S}|Your voice is fine, but your head is empty]," said {F} and [ran away|was gone].
- {A} sat on the branch [with an empty beak|and felt very foolish]. [A wise|An old] owl had seen it all. "[Be careful when someone says such sweet things|Sweet words are not always kind words]," said the owl.
/ The next day, {A} found another {S}. Again {F} came. "[Oh, sing that lovely song|Sing for me again], {A}!" {F.he} said. {A} put the {S} safely [under one foot|into the nest] and then said, "[With pleasure|Of course]!"
> {A} the {A.kind} sang [loudly|beautifully], and {F} the fox went home hungry, because the {S} [did not fall|stayed where it was].
? What did {A} hold in {his} beak? = {S}
? Who tricked {A}? = {F}
? What kind of bird was {A}? = {A.kind}
! who holds a {S} and meets a fox
~ A/F A S F

thirsty bird: A=bird J=vessel P=dry_place H=den
It had not rained for weeks. [The streams were dry.|There was dust everywhere.] A {A.kind} named {A} was very thirsty. {He} flew [here and there|over the fields] and looked for water.
/ At last, {he} saw a {J} {P}. {A} [landed on it|looked inside]. There was water at the bottom! But {his} beak was too short, and the {J} was too [deep|narrow]. {He} tried to push the {J} over, but it was [too heavy|as heavy as a rock].
/ Another bird sat nearby. "[Forget it|You will never reach it]," it said. "[I have tried for an hour|Nobody can get that water]." And it flew away.
/ But {A} did not give up. {He} looked around and saw some [small|round] stones on the ground. [Then {he} had an idea.|"What if I use these?" {he} thought.] {He} picked up one stone and dropped it into the {J}. Plop! The water rose a little. {He} dropped another one, and another one. Plop, plop!
- [It was slow work.|The sun was hot, and {his} wings were tired.] [But with each stone, the water came nearer.|But little by little, the water came up.]
/ Finally, the water [reached the top|was so high that {his} beak could touch it]. {A} drank and drank. [Nothing had ever tasted so good.|It was cool and sweet.]
> Then {A} called the other birds, and soon all of them were drinking from the {J}, [thanks to the clever {A.kind}|because one {A.kind} had used {his} head].
? What was the water in? = {J}
? What did {A} drop into the {J}? = stones
? Where was the {J}? = {P}
! who finds a {J}
~ A J P

lost baby: A=animal B=animal M=paw_animal H=den
There was once a baby {A.kind} named {A}. @day {he} followed a [blue butterfly|yellow butterfly|little bee] through the tall grass. {He} ran [left and right|over the hill and across the stream] until {he} did not know where {he} was. "Mother? Where are you?" called {A}. But [only the wind|nobody] answered.
/ {A} met {B} the {B.kind}. "Have you seen my mother?" {he} asked [with tears in {his} eyes|in a tiny voice].
"What does she look like?" asked {B}.
"She is the [prettiest|best] {A.kind} in the world," said {A}.
{B} [smiled|scratched {B.his} head]. "[I have not seen her, but I will go with you|I do not know her, but we will find her]," {B.he} said.
/ They walked [along the river|through the woods] and asked everyone they met. {M} the {M.kind} [pointed with {M.his} paw|looked up from {M.his} dinner]. "I saw a {A.kind} near the old [mill|bridge|oak]," {M.he} said. "She was calling and crying."
/ {A} and {B} ran [there as fast as they could|all the way]. And there she was! "Mother!" {A} shouted. "[My little one|My baby]!" cried {his} mother, and she held {him} [very close|as if she would never let go].
- "[I was so frightened|I thought I would never find you]," said {A}. "[Next time, look back before you run|Stay where you can see me]," said {his} mother softly.
> {A} promised to stay close to {his} mother, and they both thanked {B} the {B.kind}[, who waved and went home| with all their hearts].
? Who was lost? = {A}
? Who walked with {A}? = {B}
? Who had seen the mother? = {M}
! who loses the way and meets {B}
~ A B

bridge: A=paw_animal B=paw_animal R=river H=den
A narrow bridge went over {R}. It was so narrow that only one animal could cross at a time. @day {A} the {A.kind} came from one side and {B} the {B.kind} came from the other. They met in the middle.
/ "[Go back|Get out of my way]," said {A}. "I was here first."
"[No, you go back|I will not move]," said {B}. "[I am older than you|I am in a hurry]."
/ They [pushed and shouted|stood nose to nose and shouted]. Neither of them wanted to give way. [The bridge began to shake.|The old wood began to creak.] "[Move|Let me pass]!" cried {A}. And then, splash! Both of them fell into {R}.
/ The water was [cold and fast|icy]. {A} could not swim well. "[Help|I am sinking]!" {he} called. {B} [grabbed a branch with one paw and {A} with the other|held on to a rock and reached out to {A}]. Slowly, they pulled each other to the bank.
- They sat in the grass, wet and [cold|shaking]. [For a while, nobody said a word.|Then {A} sneezed, and {B} began to laugh.] "[We were very foolish|That was silly of us]," said {A}.
/ The next day, they met on the bridge again. "[After you|You go first], {B}," said {A} and stepped back.
> "[No, please, after you|Thank you, my friend]," said {B}, and from then on {A} and {B} never [fell into {R}|fought over the bridge] again.
? Where did they meet? = bridge
? Who met {A} on the bridge? = {B}
? What did they fall into? = {R}
! who meets {B} on a bridge
~ A B R

first flight: A=bird G=elder J=place_far H=den
@meet {His} brothers and sisters could already fly. But {A} was [afraid|scared] and [sat at the edge of the nest|stayed in the nest]. "[It is so high. What if I fall?|What if I fall?]" {he} said every time.
/ "[Your wings are strong enough|You do not have to be the best]," said {his} {G}. "[Only jump when you are ready|Everyone is scared the first time]."
/ @day a [strong|sudden] storm came. {A} was alone in the nest. [Rain fell and the wind howled.|The tree bent this way and that.] Then {he} heard a cry. {His} little sister was hanging from a branch below. "[Help me|I cannot hold on]!" she called.
/ {A} did not think about how high it was. {He} jumped. The wind caught {him}, {he} opened {his} wings, and {he} was flying! {He} reached {his} sister [just in time|at the last moment] and [helped her back into the nest|held her until the wind was gone].
- "[You flew!|Did you see that?]" said {his} sister. {A} looked down in surprise. "[I forgot to be afraid|There was no time to be scared]," {he} said.
/ The next morning, the sky was clear. {His} {G} came and said, "[Well, will you fly with me|Where shall we go]?"
> And {A} the little {A.kind} flew with {his} {G} all the way to {J}.
? Who was afraid to fly? = {A}
? Where did {A} fly to at the end? = {J}
? Who flew with {A}? = {G}
! who is afraid to fly
~ A G J

caterpillar: A=bug_name C=color B=bug H=garden_spot
There was once a [small|little] caterpillar named {A}. {He} lived {H}. {A} was slow and [plain|not very pretty], and the other bugs [made fun of {him}|laughed at {him}].
/ "Look how I shine," said the {B}. "[And you?|What can you do?] You can only [crawl|eat]."
{A} was [sad|hurt]. "[One day, I will be beautiful too|Perhaps I will fly one day]," {he} said quietly. The {B} [laughed even louder|laughed so hard that it fell over].
/ {A} ate [leaf after leaf|green leaves] and grew. When {he} was very tired, {he} crawled under a branch and [made a soft bed around {himself}|wrapped {himself} up]. Inside, it was [dark and quiet|warm and dark]. {A} slept for [many days|two weeks]. [The rain fell and the sun shone, but {he} did not wake up.|Outside, everybody forgot about {him}.]
/ One morning, {A} woke up and [felt strange|felt different]. {He} pushed and pushed until {he} was out. {He} had two big {C} wings! {He} was a butterfly.
- {A} flew over the flowers. "[Who is that?|What a beautiful butterfly!]" said the bees. [Even the birds stopped to look.|The flowers turned their faces to {him}.]
/ The {B} looked up with its mouth open. "[Is that you, {A}?|I am sorry that I laughed,]" it said.
> "[I only needed time|I was always myself]," said {A}, and [with {his} {C} wings {he} flew up into the sky|{he} let the {B} touch {his} {C} wings].
? What color were the wings? = {C}
? Who laughed at {A}? = {B}
? What did {A} become? = butterfly
! who is a caterpillar and gets {C} wings
~ A C

storm shelter: A=animal B=bird X=shelter H=den
@meet @day dark clouds came up, and it began to rain. {A} ran and [found|hid under] {X}. [It was dry there.|There was just enough room for one.]
/ Soon {B} the {B.kind} came by, [wet and cold|with dripping feathers]. "May I come in, {A}?" {B.he} asked. "[The rain hurts my wings|I cannot fly in this rain]."
"[There is not much room|It is very small]," said {A}, "but [come in|we can move closer]."
/ Then came [a wet mouse|two ants|a shaking frog]. "[Is there room for me?|Please let me in!]" Everyone [moved a little|pulled in their tails]. Then came a [hedgehog|squirrel] [with three children|with a cold nose]. They moved again. [It was a tight fit.|They were packed like fish in a tin.] But it was warm.
/ [Suddenly|All at once], there was a [terrible crash|flash and a bang]. "[What was that?|I am scared!]" cried {B}. [But because they were so many, nobody was afraid for long.|They all held on to each other.] They told stories until the storm was over.
- When the sun came out, there was a rainbow. [They all stepped out and stretched.|It stood over the trees like a bridge.] "[It is strange|How funny]," said {A}. "[At first there was only room for one|{^X.the} was so small, and yet there was room for all of us]."
> "[Where there is love, there is always room|Friends can always move a little closer]," said {B}, and {A} and {B} [often met at {X.the} after that|never forgot the day they had shared {X.the}].
? Where did {A} hide from the rain? = {X}
? Who came first? = {B}
? What kind of animal was {A}? = {A.kind}
! who finds {X} in the rain
~ A B X

planted by mistake: A=paw_animal K=tree_nut B=paw_animal H=den
@meet In autumn, {A} hid {his} {K.plural} [all over the forest|in a hundred holes]. "[I will remember every place|I have a good memory]," {he} told {his} friend {B} the {B.kind}.
/ But when winter came, {A} could not find one special {K}. {He} [dug here and dug there|looked under every root]. "[It was the biggest one of all|It was my best {K}]," {he} said sadly.
"You can have one of mine," said {B}. "[Do not be sad|You still have many others]." But {A} [could not forget it|thought about it all winter].
/ In spring, {B} called, "{A}, come quickly! [You must see this|Look what I have found]!" In the middle of a [sunny|small] clearing stood a tiny green plant with two leaves. "[That is where I hid it|Now I remember]!" cried {A}. "My {K} [has turned into a tree|is growing]!"
/ {A} and {B} [gave it water|put stones around it] and kept the [hungry goats|snails] away. Each year, the tree grew [taller|a little]. [Birds built their nests in it.|Many animals slept in its shade.]
- [Years went by.|Many summers passed.] {A} and {B} grew old, and their fur turned gray. [Now the tree was higher than any other.|Now it took ten animals to reach around it.]
> One autumn day, hundreds of {K.plural} fell from the tree, and {A} said to {B}, "[I lost one {K} and got a thousand|It was good that I forgot my {K}]."
? What did {A} lose? = {K}
? Who found the little plant? = {B}
? What kind of animal was {A}? = {A.kind}
! who loses a {K}
~ A K B

moon in the pond: A=animal B=animal U=tool2 H=den
@meet One [clear|quiet] night, {he} went to the pond to drink. There, in the dark water, {he} saw the moon. "[Oh no|How terrible]!" cried {A}. "The moon has fallen into the pond!"
/ {He} ran to {B} the {B.kind}. "[Wake up|Come quickly]! The moon [is drowning|fell into the water]!" {he} shouted. {B} [rubbed {B.his} eyes|yawned] and came out with a {U}.
/ "[We must pull it out|We have to save it]," said {A}. They [reached into|leaned over] the pond with the {U}. They pulled and pulled. But each time they touched the moon, it [broke into a hundred pieces|danced away]. [Then {A} slipped|Then {A} leaned too far], and splash! {He} fell in.
/ When {A} [came up|climbed out], with [a lily leaf|mud] on {his} head, {he} looked at the sky. "[Look|There it is], {B}! We threw it back up!" {he} said [proudly|happily].
{B} [looked at the sky and then at the water|was quiet for a moment]. There was the moon in the sky, and there was the moon in the pond. {B} began to laugh. "[It never fell|It was only a picture in the water], {A}," {B.he} said.
- "[Are you sure|Really]?" asked {A}. {He} looked up and down and up again. Then {he} laughed too.
> {A} and {B} put the {U} down and sat by the pond [until morning|for a long time], [looking at two moons|and one moon shone above them and one below].
? What did {A} see in the pond? = moon
? What did they pull with? = {U}
? Who came to help {A}? = {B}
! who sees the moon in a pond
~ A B U

new neighbor: A=animal B=scary_animal G=neighbor_gift H=den
@meet One day, a {B.kind} moved into the [old cave|empty house|hollow tree] near {A}'s home. The {B.kind}'s name was {B}. "[Have you seen those teeth?|{^B.he} looks dangerous,]" said the [duck|squirrel]. "[Stay away from {B.him}|I would not go near there]."
/ So everybody stayed away. [Nobody said hello.|When {B} came to the river, they all ran off.] {A} [watched from behind a bush|felt strange about it]. {B} [sat alone in front of the door|looked so sad].
/ @day {A} [took all {his} courage|made up {his} mind]. {He} [made|prepared] {G} and knocked on the door. {His} legs were shaking. The door opened, and there stood {B}, [very big|as tall as a tree].
"[What do you want|Who is there]?" asked {B} in a deep voice.
"I [brought you|made you] {G}," said {A}. "Welcome!"
/ {B}'s eyes [filled with tears|grew wide]. "[Nobody has ever given me anything|You are the first one who came]," {B.he} said. "[I thought that nobody liked me|I thought you all hated me]. Please come in!" They ate {G.the} and [talked until it was dark|laughed a lot]. {B} could tell the [funniest|best] stories.
- The next day, {A} told the others. "[{B} is not dangerous at all|You were wrong about {B}]," {he} said. "[{^B.he} is shy and kind|{^B.he} is as gentle as a lamb]." One after another, they went to say hello.
> Soon everyone [loved|liked] {B} the {B.kind}, but {A}, who had come first with {G.the}, was always {B.his} best friend.
? Who was the new neighbor? = {B}
? What did {A} bring? = {G}
? What kind of animal was {B}? = {B.kind}
! who brings {G} to a {B.kind}
~ A/B A B G

patient fishing: A=fisher G=elder F=fish_word R=river H=den
@meet {He} could not wait for anything. When {he} was hungry, {he} wanted to eat at once. When it rained, {he} wanted the sun at once.
/ @day {his} {G} took {him} to {R}. "Today you will catch your first {F}," said {his} {G}. "[Sit still and be quiet|You must not move]."
{A} sat down. After one minute, {he} asked, "[Is it coming|Where is the {F}]?" "[Shh|Wait]," said {his} {G}. After two minutes, {A} [jumped up|threw a stone into the water]. A big {F} had been near, but now it swam away.
/ "[I hate waiting|There are no fish here]!" cried {A}.
{^his} {G} [smiled|put an arm around {him}]. "[Listen to the water|Look at the clouds]," {G.he} said. "[Waiting is not doing nothing|There is much to see when you are still]."
/ So {A} listened. {He} heard [the frogs|the wind in the leaves]. {He} saw [a blue dragonfly|a tiny snail] on a leaf. [{He} forgot about the time.|The morning went by, and {he} did not notice.] And then, something [moved in the water|shone]. Very slowly, {A} put out {his} paw. Snap! {He} held a {F}!
- "[I did it|I caught it]!" {A} called. {^his} {G} [laughed|was very proud]. "[You see|There you are], it came when you were ready," {G.he} said.
> That evening, {A} and {his} {G} ate the {F} by {R}, and {A} was [in no hurry|glad] to wait for the stars.
? What did {A} catch? = {F}
? Who took {A} to fish? = {G}
? Where did they go? = {R}
! who learns to catch a {F}
~ A F G R

proud bird: A=proud_bird C=color B=paw_animal X=trap H=den
@meet {He} had [wonderful|long] {C} feathers, and {he} was very proud of them. {He} looked at {himself} in the water [all day|for hours]. "[Who is as beautiful as I am?|Nobody has feathers like mine,]" {he} said.
/ {B} the {B.kind} [passed by|came to drink]. "[Good morning|Hello], {A}," said {B}.
"[Do not stand so close|Go away]," said {A}. "[You are brown and muddy|Your coat is full of dirt]. [You will ruin my feathers|I do not talk to someone like you]." {B} [said nothing and went away|was hurt and walked on].
/ @day {A} walked through the woods with {his} head so high that {he} did not see where {he} was going. {He} fell into {X}! {His} {C} feathers were [stuck|caught] everywhere, and {he} could not get out. "Help!" {he} cried. [The birds flew on.|Nobody heard {him}.]
/ Only {B} came. "[I know I was rude to you|I am sorry for what I said]," said {A}. "[Please help me.|Will you help me anyway?]"
{B} did not [say a word|laugh]. {B.He} {X.free}. It took until evening. Then {A} was free, but [many of {his} {C} feathers were gone|{his} {C} feathers were torn and dirty].
- "[How ugly I am now|Look at me]," said {A}. "[I think you look better|Feathers grow again]," said {B} with a smile. "[Now you look like one of us|A kind heart is what I look for]."
> {A}'s {C} feathers grew back, but {he} [never looked down on anyone again|looked at {himself} less often], and {B} was {his} [best friend|dearest friend].
? What color were the feathers? = {C}
? Who helped {A}? = {B}
? Where was {A} stuck? = {X}
! who has {C} feathers
~ A/B A B C
"""
