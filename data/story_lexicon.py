"""What a small child knows about words: plurals, Chinese, groups, opposites, past tenses, sounds and colors.

The lessons (story_lessons.py) put every entry into the pretraining text; the tasks (story_tasks.py) ask for it.
"""

# ruff: noqa: E501, SIM905

# Few words, often met: what a model of two million parameters can know after minutes.
# Group: singular plural Chinese, ...
NOUN_TABLE = {
    "animal": """cat cats 猫, dog dogs 狗, bird birds 鸟, fish fish 鱼, horse horses 马, cow cows 牛, pig pigs 猪,
        duck ducks 鸭子, rabbit rabbits 兔子, mouse mice 老鼠, bear bears 熊, lion lions 狮子,
        frog frogs 青蛙, sheep sheep 羊""",
    "fruit": """apple apples 苹果, pear pears 梨, banana bananas 香蕉, peach peaches 桃子, cherry cherries 樱桃,
        lemon lemons 柠檬, plum plums 李子, grape grapes 葡萄""",
    "vegetable": """carrot carrots 胡萝卜, potato potatoes 土豆, tomato tomatoes 西红柿, onion onions 洋葱,
        pumpkin pumpkins 南瓜, bean beans 豆子""",
    "kind of food": """egg eggs 鸡蛋, cake cakes 蛋糕, cookie cookies 饼干, sandwich sandwiches 三明治, pie pies 馅饼,
        bun buns 包子""",
    "toy": """ball balls 球, kite kites 风筝, doll dolls 娃娃, robot robots 机器人, drum drums 鼓,
        balloon balloons 气球, puppet puppets 木偶""",
    "piece of clothing": """hat hats 帽子, scarf scarves 围巾, coat coats 大衣, shirt shirts 衬衫, dress dresses 裙子,
        shoe shoes 鞋子, sock socks 袜子, glove gloves 手套""",
    "part of the body": """hand hands 手, foot feet 脚, eye eyes 眼睛, ear ears 耳朵, nose noses 鼻子, mouth mouths 嘴,
        tooth teeth 牙齿, head heads 头""",
    "vehicle": """car cars 汽车, bus buses 公共汽车, train trains 火车, boat boats 小船, plane planes 飞机,
        truck trucks 卡车, ship ships 轮船""",
    "thing in the house": """chair chairs 椅子, table tables 桌子, bed beds 床, lamp lamps 灯, door doors 门,
        window windows 窗户, clock clocks 钟, cup cups 杯子""",
    "thing at school": """book books 书, pencil pencils 铅笔, desk desks 书桌, map maps 地图, pen pens 钢笔, bell bells 铃""",
    "thing in nature": """tree trees 树, flower flowers 花, leaf leaves 叶子, river rivers 河, stone stones 石头,
        star stars 星星, cloud clouds 云, lake lakes 湖""",
    "person": """boy boys 男孩, girl girls 女孩, baby babies 宝宝, child children 孩子, man men 男人, woman women 女人,
        friend friends 朋友, teacher teachers 老师, king kings 国王""",
}
# (singular, plural, Chinese, group)
NOUNS = [(*entry.split(), group) for group, table in NOUN_TABLE.items() for entry in table.split(",")]

COLOR_TABLE = """red 红色, blue 蓝色, green 绿色, yellow 黄色, white 白色, black 黑色, brown 棕色, orange 橙色, purple 紫色,
    pink 粉色, gray 灰色, golden 金色"""
COLORS = [tuple(entry.split()) for entry in COLOR_TABLE.split(",")]  # (English, Chinese)

OPPOSITE_TABLE = """big small, hot cold, happy sad, fast slow, old new, day night, up down, open closed, wet dry, long short,
    high low, hard soft, full empty, early late, light dark, strong weak, clean dirty, loud quiet, rich poor, good bad,
    left right, inside outside, near far, thick thin, first last, brave afraid, kind mean, sweet sour, come go, win lose,
    laugh cry, push pull, summer winter, friend enemy, always never, true false"""
OPPOSITES = [tuple(pair.split()) for pair in OPPOSITE_TABLE.split(",")]

SOUND_TABLE = """cow moo, dog woof, cat meow, duck quack, sheep baa, pig oink, horse neigh, frog ribbit, owl hoot, lion roar,
    bee buzz, mouse squeak, hen cluck, snake hiss, crow caw, wolf howl, chick cheep, goose honk"""
SOUNDS = [tuple(pair.split()) for pair in SOUND_TABLE.split(",")]  # (animal, sound)

COLOR_OF_TABLE = """banana yellow, grass green, snow white, coal black, sky blue, cherry red, carrot orange, lemon yellow,
    strawberry red, frog green, pig pink, milk white, chocolate brown, plum purple, tomato red, elephant gray, cloud white,
    pumpkin orange, crow black, bear brown, sunflower yellow, leaf green, sea blue, fire_truck red"""
COLOR_OF = [tuple(word.replace("_", " ") for word in pair.split()) for pair in COLOR_OF_TABLE.split(",")]

# Present | past | what may follow, separated by commas. {P} is the subject's possessive.
VERB_TABLE = """
walks | walked | to the park, to school, through the forest, along the river, home in the rain
runs | ran | to the bus, across the field, up the hill, after the ball, down the street
eats | ate | an apple, a big sandwich, two cookies, a bowl of soup, cake with {P} friends
plays | played | with a ball, in the garden, with the puppy, a game with {P} friends, soccer after school
finds | found | a coin under the bed, a shell on the beach, {P} lost key, a bird in the tree, a box of toys
sees | saw | a rabbit in the grass, a star in the sky, a big ship, {P} friend at the market, a fox near the river
gives | gave | a flower to {P} mom, some milk to the cat, a book to {P} teacher, a gift to {P} friend
reads | read | a book about bears, a story to the class, a letter from {P} grandma, the old map
sings | sang | a happy song, in the bath, with the birds, to the baby
draws | drew | a picture of a horse, a red house, a map of the island, {P} best friend
makes | made | a paper boat, a cake for {P} dad, a snowman in the garden, a card for {P} grandpa
helps | helped | {P} mom in the kitchen, the old man with his bags, {P} little brother, a lost duckling
looks | looked | under the bed, out of the window, at the moon, behind the door
opens | opened | the window, the door for {P} dad, a box of crayons, the little gate
jumps | jumped | over the puddle, into the lake, on the bed, across the stream
climbs | climbed | the apple tree, up the hill, over the fence, the ladder
swims | swam | in the lake, across the pool, with the ducks, near the beach
rides | rode | a brown pony, {P} bike to school, on a bus, around the park
builds | built | a tower of blocks, a fort in the garden, a castle of sand, a house for the birds
drinks | drank | a glass of milk, some water, hot chocolate, apple juice
sleeps | slept | in a tent, under the stars, all afternoon, in {P} little bed
buys | bought | some bread, a new hat, apples at the market, a toy for {P} sister
brings | brought | soup to {P} friend, flowers for the teacher, a blanket, {P} dog to the park
loses | lost | {P} hat in the wind, a red glove, the key to the door, {P} way in the forest
hears | heard | a strange noise, the bell, an owl in the night, music from the street
waters | watered | the flowers, the garden, the little tree, the tomatoes
washes | washed | {P} hands, the dirty dishes, {P} dad's car, the muddy dog
hides | hid | behind the sofa, the gift under the bed, in the tall grass, a letter in a book
catches | caught | a big fish, the ball with one hand, a butterfly, the last bus
writes | wrote | a letter to {P} aunt, a short poem, {P} name on the wall, a list of toys
tells | told | a funny joke, the truth, a story about a dragon, {P} dad about the race
paints | painted | the fence, a blue boat, a picture for {P} mom, the old chair
sits | sat | on a bench, next to {P} friend, under a tree, by the fire
throws | threw | the ball to {P} friend, a stone into the lake, a stick for the dog, a snowball
holds | held | the kitten, {P} mom's hand, a warm cup, the end of the rope
feeds | fed | the hens, the hungry cat, the ducks on the lake, {P} goldfish
"""


def verbs() -> list[tuple[str, str, list[str]]]:
    """(present, past, complements) of every verb."""
    table = [[cell.strip() for cell in line.split("|")] for line in VERB_TABLE.strip().splitlines()]
    return [(present, past, [c.strip() for c in rest.split(",")]) for present, past, rest in table]


VERBS = verbs()
NUMBERS = "zero one two three four five six seven eight nine ten".split()
