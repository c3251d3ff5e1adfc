"""The words of the stories: pools of names, things, places and feelings that a shape draws its slots from.

A pool is a list of rows; a row is a dict of facets. Facet "" is the word itself (slot `{O}`), the others are forms
that belong to it (`{O.use}`). Character rows carry their pronouns, so names and pronouns always agree.
Only `random()` of the generator is ever used to draw from a pool, and pools are lists: no order depends on hashing.
"""

# ruff: noqa: E501, SIM905

HE = {"he": "he", "him": "him", "his": "his", "himself": "himself", "He": "He", "His": "His"}
SHE = {"he": "she", "him": "her", "his": "her", "himself": "herself", "He": "She", "His": "Her"}

# Few names, so that a small model soon learns to carry one through a story instead of learning the names by heart.
GIRLS = "Lily Mia Emma Anna Lucy Zoe Ella Ruby Nora Clara Molly Sara Amy Jane Grace Alice".split()
BOYS = "Tom Ben Sam Max Leo Jack Tim Dan Noah Oscar Henry Peter Paul Luke Adam Fred".split()
ANIMAL_GIRLS = "Dot Bella Coco Honey Poppy Luna Misty Daisy".split()
ANIMAL_BOYS = "Pip Hopper Rusty Bruno Milo Teddy Chip Patch".split()
ANIMALS = "rabbit fox bear mouse squirrel hedgehog duck frog turtle deer beaver badger otter mole lamb goat".split()
BIG_ANIMALS = "lion elephant bear tiger bull wolf buffalo".split()
BIRDS = "robin sparrow crow owl parrot pigeon magpie blackbird".split()
SURNAMES = "Brown Green Hill Wood Baker Lee Park Bell".split()


def pool(facets: str, rows: str) -> list[dict[str, str]]:
    """Rows of a table, one per line, columns separated by `|`; the first column is the word itself, facet "".

    `pool("plural", "cat | cats")` -> `[{"": "cat", "plural": "cats"}]`
    """
    names = ["", *facets.split()]
    table = [[cell.strip() for cell in line.split("|")] for line in rows.strip().splitlines()]
    return [dict(zip(names, row, strict=True)) for row in table]


def words(text: str) -> list[dict[str, str]]:
    """Rows of a pool without facets, separated by commas."""
    return [{"": word.strip()} for word in " ".join(text.split()).split(",")]


def people(girls: list[str], boys: list[str], girl: str = "girl", boy: str = "boy") -> list[dict[str, str]]:
    """Named characters with a kind ("girl") and their pronouns."""
    return [{"": n, "kind": girl, **SHE} for n in girls] + [{"": n, "kind": boy, **HE} for n in boys]


def creatures(kinds: list[str]) -> list[dict[str, str]]:
    """Animal characters: every kind with every animal name."""
    return [row for kind in kinds for row in people(ANIMAL_GIRLS, ANIMAL_BOYS, kind, kind)]


def adults(title: str) -> list[dict[str, str]]:
    """Grown-ups: Mr. and Mrs. with every surname, each with a `title` such as neighbor."""
    return [{"": f"{t} {s}", "kind": title, "woman": w, **p} for s in SURNAMES
            for t, w, p in (("Mrs.", "woman", SHE), ("Mr.", "man", HE))]


POOLS: dict[str, list[dict[str, str]]] = {
    "child": people(GIRLS, BOYS),
    "animal": creatures(ANIMALS),
    "big": creatures(BIG_ANIMALS),
    "bird": creatures(BIRDS),
    "adult": adults("neighbor"),
    # Family members: word, what a child calls them, and pronouns.
    "parent": [{"": w, "call": c, **p} for w, c, p in
               (("mom", "Mom", SHE), ("dad", "Dad", HE), ("grandma", "Grandma", SHE), ("grandpa", "Grandpa", HE))],
    "elder": [{"": w, "call": c, **p} for w, c, p in
              (("grandma", "Grandma", SHE), ("grandpa", "Grandpa", HE), ("aunt", "Auntie", SHE), ("uncle", "Uncle", HE))],
    "sibling": [{"": w, **p} for w, p in
                (("little sister", SHE), ("little brother", HE), ("big sister", SHE), ("big brother", HE))],
    "small_animal": creatures(["mouse", "mole", "squirrel", "hedgehog", "rabbit"]),
    "paw_animal": creatures(["rabbit", "fox", "bear", "mouse", "squirrel", "hedgehog", "beaver", "badger", "otter", "mole"]),
    "fisher": creatures(["bear", "otter", "fox", "badger", "raccoon"]),
    "proud_bird": creatures(["peacock", "parrot", "rooster", "pheasant"]),
    "slow": creatures(["turtle", "snail", "hedgehog", "duck", "mole"]),
    "swift": creatures(["rabbit", "deer", "horse", "fox", "wolf"]),
    "scary_animal": creatures(["bear", "wolf", "lion", "badger", "bull"]),
    "animal_name": people(ANIMAL_GIRLS, ANIMAL_BOYS, "fox", "fox"),
    "bug_name": people(ANIMAL_GIRLS, ANIMAL_BOYS, "caterpillar", "caterpillar"),
    "bug": words("beetle, ladybug, dragonfly, grasshopper"),
    "color": words("red, blue, green, yellow, orange, purple, pink, white, brown, silver, golden, black"),
    "kind_trait": pool("line", """
kind | liked to help everyone
gentle | never said an unkind word
brave | was not afraid of anything
clever | always had a good idea
cheerful | smiled at everyone
curious | asked questions all day long
friendly | said hello to everyone
honest | always told the truth
patient | never minded waiting
helpful | was always ready to lend a hand
polite | always said please and thank you
careful | took good care of everything
generous | loved to give presents
playful | loved to run and laugh"""),
    # Traits that fit any child in any story.
    "mild_trait": words("kind, clever, cheerful, curious, friendly, playful, gentle, polite, funny, lively"),
    "toy": words("""ball, kite, doll, teddy bear, toy car, toy train, toy boat, toy robot, drum, whistle, yo-yo, puppet,
toy plane, toy truck, jump rope, toy horse, toy rabbit, toy dinosaur, spinning top, balloon"""),
    "sturdy_toy": words("""ball, doll, teddy bear, toy car, toy train, toy boat, toy robot, drum, puppet, toy plane, toy truck,
toy horse, toy rabbit, toy dinosaur, wagon, scooter"""),
    "keepsake": words("""key, button, coin, ring, marble, ribbon, bracelet, medal, pocket watch, necklace, bell, flute,
music box, compass, magnifying glass, notebook"""),
    "wear": words("hat, scarf, coat, sweater, cap, jacket, raincoat, cape, belt, backpack"),
    "fragile": pool("break", """
vase | fell to the floor and broke into many pieces
teapot | slipped off the table and broke in two
lamp | tipped over and broke with a crash
plate | slid off the shelf and cracked down the middle
window | shook, cracked and broke
mirror | fell off the wall and broke
flower pot | rolled off the step and broke
glass bowl | bounced once on the floor and broke
picture frame | dropped from the wall and broke
cookie jar | tumbled from the counter and broke"""),
    "hiding": words("""under the bed, behind the sofa, in the laundry basket, under a pile of leaves, behind the bookcase,
in the toy box, under the kitchen table, behind the curtain, in the garden shed, under the stairs, beside the pond,
in the back of the car, inside an old boot, between two cushions, under the big oak tree, on top of the cupboard,
in the tall grass, behind the garden gate, in the bathtub, under a blanket, behind the piano, next to the mailbox,
under the porch, in the flower bed"""),
    "home": words("""a small house near the sea, a little village, a quiet town, a cottage by the forest, a house on a hill,
a tall house in the city, a farmhouse in the valley, a cozy house by the river, a little house with a red roof,
a white house at the end of the road, a busy town, an apartment above a bakery"""),
    "den": words("""the forest, a green valley, the woods near the river, a sunny meadow, a wood full of tall trees,
a quiet forest by a lake, the hills, a thick green forest"""),
    "snack": words("""apple, sandwich, cookie, banana, pear, cupcake, orange, muffin, slice of cake, bowl of soup, peach,
pancake, bag of nuts, slice of pizza, piece of cheese, bun, plum, bowl of rice, carrot, egg"""),
    "skill": pool("ing fail win", """
ride a bike | riding a bike | wobbled and fell into the grass | rode all the way down the street
swim | swimming | swallowed some water and had to cough | swam from one end of the pool to the other
skate | skating | slipped and landed on the ice with a bump | glided around in a big circle
whistle | whistling | only blew air and made no sound | whistled a whole song
jump rope | jumping rope | tripped over the rope | jumped twenty times in a row
play the piano | playing the piano | hit all the wrong keys | played the whole song without a mistake
juggle | juggling | dropped every ball on the floor | kept three balls in the air
draw a horse | drawing horses | made a horse that looked like a sofa | drew a horse that looked ready to run
catch a ball | catching a ball | missed the ball and it rolled away | caught the ball with one hand
climb the rope | climbing the rope | slid right back down | climbed to the very top and touched the bell
paddle a canoe | paddling a canoe | went around and around in circles | paddled straight across the lake
do a cartwheel | doing cartwheels | rolled over sideways like a barrel | did a perfect cartwheel
sew | sewing | got the thread in a knot | sewed a neat little pillow
play chess | playing chess | lost the queen in the first few moves | won a game for the first time
ski | skiing | sat down in the snow with a thump | skied down the whole hill
play the violin | playing the violin | made a terrible squeak | played a sweet, clear tune
tie a bow | tying bows | ended up with a big knot | tied a bow that looked like a butterfly
read the clock | reading the clock | mixed up the two hands | read the time without any help"""),
    "pet": pool("baby sound", """
dog | puppy | barked
cat | kitten | meowed
rabbit | bunny | squeaked
parrot | parrot | squawked
duck | duckling | quacked
goat | little goat | bleated
hen | chick | cheeped
pony | pony | neighed"""),
    "lost_pet": pool("sound", """
puppy | barked
kitten | meowed
duckling | quacked
lamb | bleated
chick | cheeped
piglet | squealed
parrot | squawked
pony | neighed"""),
    "seed": pool("plural end", """
sunflower | sunflowers | with a face as big as a plate
pumpkin | pumpkins | as round as the moon
tomato | tomatoes | as red as a fire truck
bean | beans | that climbed up to the window
rose | roses | that smelled as sweet as honey
strawberry | strawberries | as sweet as candy
carrot | carrots | as long as a pencil
apple tree | apple trees | with tiny white flowers
melon | melons | too heavy to lift
daisy | daisies | with bright white petals
tulip | tulips | as red as a ruby
pea | peas | in a fat green pod"""),
    "gift": words("""kite, puppy, bicycle, telescope, guitar, paint set, storybook, train set, pair of skates, model ship,
doll house, camera, globe, music box, chess set, warm sweater, box of crayons, scooter"""),
    "bakery": pool("need", """
chocolate cake | sugar
apple pie | butter
cheese tart | salt
lemon cake | flour
loaf of bread | yeast
banana bread | milk
carrot cake | honey
honey cake | eggs
berry pie | cream
plum cake | sugar"""),
    "noise": pool("sound", """
a branch that was tapping on the window | tap, tap, tap
the cat chasing a moth | thump, thump, thump
the wind in the chimney | whoo, whoo, whoo
an owl in the tree outside | hoo, hoo, hoo
a loose door in the hall | creak, creak, creak
the old clock downstairs | tick, tock, tick, tock
a mouse behind the wall | scratch, scratch, scratch
rain dripping into a bucket | drip, drip, drip
a toy train that had been left on | click, clack, click, clack
Uncle Bob snoring in the next room | snore, snore, snore"""),
    "event": pool("do", """
running race | ran as fast as {he} could
swimming race | kicked and splashed as hard as {he} could
singing contest | sang in a loud, clear voice
painting contest | painted for two whole hours
spelling contest | spelled every word out loud
baking contest | mixed and baked all morning
sack race | hopped along with both feet in a sack
dance contest | danced across the stage
chess match | thought hard about every move
boat race | rowed with all {his} might"""),
    # Both outcomes are equally frequent, so neither feeling is the likelier ending.
    "result": pool("feel tell prize", """
won | proud and happy | "I won!" | a shiny gold medal
came last | sad and disappointed | "I came last," | a small paper star
came second | pleased and surprised | "I came second!" | a silver cup
lost by a little | sorry but still hopeful | "I almost won," | a green ribbon"""),
    "indoor": pool("end", """
a fort out of blankets and chairs | slept in their fort that night
a puppet show behind the sofa | bowed to the whole family
a pirate ship out of boxes | sailed their ship across the living room
a long train out of kitchen chairs | rode their train to the moon
a paper zoo with forty animals | showed their zoo to everyone
a tower of blocks as tall as a door | knocked down their tower with a crash
a shop with buttons for money | sold everything in their shop
a band with pots and spoons | played their music until dinner"""),
    "outing": words("picnic, trip to the beach, bike ride, trip to the zoo, hike, boat trip, soccer game, trip to the fair"),
    "soup": words("""chicken soup, hot chocolate, warm bread, lemon tea, noodle soup, honey cookies, vegetable soup, fresh orange juice, rice pudding, apple juice"""),
    "job": pool("tool ing", """
sweep the path | broom | sweeping the path
rake the leaves | rake | raking the leaves
water the flowers | watering can | watering the flowers
paint the fence | brush | painting the fence
dig the garden | shovel | digging the garden
shovel the snow | shovel | shoveling the snow
wash the windows | bucket | washing the windows
carry the firewood | basket | carrying the firewood"""),
    "place": words("""park, beach, zoo, market, library, farm, museum, forest, lake, school, playground, castle, circus, harbor,
bakery, garden"""),
    "fruit": words("apples, pears, oranges, bananas, plums, peaches, cherries, grapes, lemons, melons, strawberries, mangoes"),
    "nut": words("acorns, walnuts, berries, chestnuts, mushrooms, pine cones, apples, hazelnuts"),
    "feast": words("""blueberries, honey cakes, acorns, cherries, carrots, pears, nuts, raspberries, sweet potatoes, plums,
pumpkin pies, grapes"""),
    "trap": pool("free", """
a hunter's net | chewed through the ropes one by one
a deep pit | pushed sticks down to make a ladder
a thorn bush | pulled out the thorns one by one
a tangle of vines | bit through the vines one by one
the thick mud | rolled stones over to make a path"""),
    "wish": pool("got bad", """
a mountain of candy | the whole house filled up with candy | {A}'s stomach began to hurt
a hundred puppies | a hundred puppies ran through the door | they chewed up every shoe in the house
summer all year | the sun shone every single day | all the flowers dried up
a castle | a castle rose up in the garden | {A} got lost in the long, cold halls
wings | two big wings grew on {his} back | {he} could not fit through the door
a world without school | the school was gone | {A} missed all {his} friends
snow every day | the snow fell until it reached the roof | nobody could open the door
a golden bed | the bed turned into gold | it was far too hard to sleep on"""),
    "treasure": words("""a box of old coins, a tin of toy soldiers, a golden key, a bag of marbles, a silver spoon, a letter from long
ago, a tiny wooden ship, a jar of bright shells, a crown made of paper, a storybook with gold letters"""),
    "sea": pool("in", """
crab | crab
starfish | starfish
baby turtle | turtle
little fish | fish
small seal | seal
jellyfish | jellyfish"""),
    "show": pool("role line", """
the school play | a tree | "Spring is here!"
the winter play | the king | "Open the gates!"
the class play | a sailor | "Land ahead!"
the spring play | a bee | "Who wants some honey?"
the puppet play | the dragon | "Do not be afraid of me!"
the big concert | the narrator | "Welcome, everyone!"
the school show | a star | "I will light your way!" """),
    "monster": pool("fear", """
dragon | smoke
giant | heavy steps
wolf | long teeth
troll | deep voice
bear | big paws
witch | black cat"""),
    "zoo": pool("does", """
elephant | splashed water with its trunk
monkey | swung from rope to rope
lion | roared so loudly that the fence shook
giraffe | ate leaves from the top of a tree
penguin | slid down the ice on its belly
parrot | said hello to everyone
kangaroo | carried a baby in its pocket
zebra | shook its black and white stripes
seal | balanced a ball on its nose
panda | sat in the shade and ate bamboo
tiger | walked up and down on soft paws
camel | chewed slowly and looked at the sky"""),
    "room_spot": words("""under the bed, behind the bookcase, in the toy box, under a blanket, under a pillow, under the desk,
behind the curtain, inside an old boot, between two books, behind the lamp, in a dirty sock"""),
    "crowded": words("market, zoo, fair, museum, circus, train station, harbor, airport, festival, castle, theater, toy shop"),
    "outside": words("""under a bush, behind the school, under a bench, behind the bakery, under an old bridge,
behind a fence, under a parked car, behind a pile of wood, beside the road, in a ditch, behind the church"""),
    "tree_toy": words("kite, ball, paper plane, toy plane, balloon, toy rocket"),
    "idea": pool("then", """
We can tie a stone to a string and throw it over the branch | they pulled on the string, the branch bent down
If you stand on my shoulders, you can reach it | {B} climbed on {A}'s shoulders and reached out a hand
There is a long broom in our shed, and we can push it with that | {A} pushed with the broom
We can borrow the ladder from the man next door | {A} climbed up the ladder and gave it a pull
We can throw my shoe at the branch, very gently | the shoe hit the branch
Let us both shake the thin branch with a rope | they shook the branch until the leaves danced"""),
    "drawn": words("flowers, stars, hearts, birds, fish, butterflies"),
    "snow_nose": words("carrot, potato, pine cone, banana, red pepper, lemon, pear, cucumber"),
    "coins": pool("many", """
two coins | six
three coins | ten
four coins | five
five coins | eight"""),
    "place_far": words("""the old mill, the big rock, the lake, the tall pine tree, the stone bridge, the windmill, the church
tower, the top of the hill, the waterfall, the edge of the wood, the lighthouse, the castle"""),
    "hunter": words("wolf, lynx, tiger, crocodile, lion, snake"),
    "morsel": words("piece of cheese, slice of bread, cookie, fat cherry, sausage, piece of cake, nut, ripe plum"),
    "vessel": words("tall jar, clay pot, bucket, bottle, jug, pitcher"),
    "dry_place": words("beside a well, behind a barn, in an empty garden, next to a wall, on a dusty road, near a farmhouse"),
    "river": words("the river, the stream, the wide river, the deep stream, the cold lake, the green river, the brook"),
    "garden_spot": words("under a cabbage leaf, in a rose bush, on an apple tree, between two tomato plants, in a quiet garden"),
    "shelter": words("a big mushroom, a hollow log, a wide leaf, an old boat, a broken umbrella, a little cave, a fallen tree"),
    "tree_nut": pool("plural", """
acorn | acorns
chestnut | chestnuts
hazelnut | hazelnuts
walnut | walnuts
pine cone | pine cones
cherry stone | cherry stones"""),
    "tool2": words("long stick, fishing net, rope, rake, big spoon, bucket"),
    "neighbor_gift": words("""a berry pie, a honey cake, a hot soup, a carrot cake, an apple pie, a big salad,
a loaf of fresh bread, a plate of cookies"""),
    "fish_word": words("trout, salmon, carp, silver fish, perch, pike"),
    "finder": words("an old lamp, a dusty bottle, a blue jar, a silver teapot, a strange shell, a little brass box"),
    "dragon_name": [{"": n} for n in "Flame Smoke Ember Cinder Spark Thunder Storm Shadow Ash Blaze".split()],
    "dragon_fear": words("mice, water, thunder, bees, spiders, cows, balloons, feathers, butterflies, rabbits"),
    "dig_place": words("""behind the old barn, under a crooked tree, between two tall rocks, near the broken fence,
beside the dry fountain, under the third apple tree, at the foot of the tower"""),
    "robot_name": [{"": n} for n in "Bolt Beep Zip Tinny Gizmo Rivet Dash Pixel Clank Widget".split()],
    "chore": words("""wash the dishes, sweep the floor, make the bed, feed the cat, fold the clothes, clean the windows,
set the table, take out the trash"""),
    "captain": [{"": f"Captain {s}", "woman": w, **p} for s in ("Finch", "Rock", "Gray", "Drake", "Marsh", "Swift")
                for w, p in (("woman", SHE), ("man", HE))],
    "ship": [{"": n} for n in ("Sea Star", "Silver Fish", "White Gull", "Morning Star", "Brave Anna", "North Wind", "Blue Whale",
                               "Golden Crown")],
    "sea_animal": words("dolphin, whale, seal, big turtle, sea lion, porpoise"),
    "night_thing": words("a raccoon, a hedgehog, a baby deer, a gray fox, a skunk, a fat badger, a little owl, a hungry mouse"),
    "world": words("""a city of glass, a forest of blue trees, a land under the sea, a garden of giant flowers, a town in the clouds,
a valley full of tiny houses, a kingdom of paper, an island of bells"""),
    "letter_gift": words("""a pair of red mittens, a little wooden horse, a jar of plum jam, a painted egg, a photo in a frame,
a bag of sweets, a tiny snow globe, a knitted hat"""),
    "letter_news": words("""I can ride a bike now, I got a gold star in school, our cat has three kittens, I lost my first tooth,
I planted a tree in the yard, I learned to swim this summer, we have a new baby in the family, I can read whole books now"""),
    "riddle": pool("key", """
What has hands but cannot clap? | a clock
What has teeth but cannot bite? | a comb
What has keys but opens no door? | a piano
What gets wet while it dries? | a towel
What has a neck but no head? | a bottle
What goes up but never comes down? | your age
What can you catch but never throw? | a cold
What has one eye but cannot see? | a needle
What is full of holes but holds water? | a sponge
What runs but has no legs? | a river"""),
    "monster_name": [{"": n, **p} for n, p in (("Grump", HE), ("Grizel", SHE), ("Mossy", SHE), ("Bodo", HE), ("Rumble", HE),
                                              ("Murka", SHE), ("Grog", HE), ("Olga", SHE))],
    "painted": words("""a yellow bird, a white horse, a tiny dog, a red rooster, a gray donkey, a little goat, a blue butterfly,
a black cat"""),
    "king": [{"": n} for n in "Boris Rufus Oswald Magnus Edgar Conrad Albert Roland".split()],
    "lighthouse_home": words("a lighthouse by the sea, a tall lighthouse, a lighthouse on a rock, a white lighthouse"),
    "light_thing": words("a lantern, a torch, a big candle, a small lamp, an old flashlight, an oil lamp"),
    "tooth_gift": words("a shiny coin, a tiny book, a glass marble, a silver bell, a new pencil, a golden star, a small ring"),
    "instrument": words("drum, trumpet, violin, flute, guitar, horn, whistle, tuba, trombone"),
    "sky_thing": words("""the rings of Saturn, a red planet, the mountains of the moon, a cloud of tiny stars, two stars dancing,
a bright comet, the moons of Jupiter"""),
    "sky_wish": words("""a little brother, a trip to the sea, a dog, a best friend, snow at the weekend, a tree house, a rocket,
a new bike"""),
    "soft_drink": words("lemonade, apple juice, iced tea, orange juice, cherry juice, melon juice, berry juice"),
    "driver": [{"": f"{t} {s}", **p} for s in ("Wheeler", "Carter", "Rivers", "Ford") for t, p in (("Mrs.", SHE), ("Mr.", HE))],
    "class_pet": words("hamster, mouse, guinea pig, turtle, lizard, rabbit, rat"),
    "pet_name": [{"": n} for n in "Peanut Biscuit Whiskers Button Pepper Muffin Socks Noodle Pickle Crumbs".split()],
    "pet_food": words("carrots, seeds, lettuce, apple slices, sunflower seeds, cucumber, corn"),
}
