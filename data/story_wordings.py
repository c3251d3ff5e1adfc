"""How the instructions of story_tasks.py are worded, family by family, and the frames of its sentences."""

import re

# Family, then its wordings, one per line.
WORDING_TABLE = """story
  Write a story about {}.
  Tell me a story about {}.
  Please write a short story about {}.
  Can you tell a story about {}?
  I want to hear a story about {}.
  Make up a story about {}.
ending
  Write the last sentence of this story.
  Finish this story with one sentence.
  How does this story end? Write one sentence.
  Add one sentence that ends the story.
  Write one sentence to end this story.
  Give this story a last sentence.
question
  {}
  Read the story. {}
  Answer the question about the story. {}
  Look at this story. {}
  {} Answer in a few words.
  Tell me: {}
sentence
  Write a sentence with the words {} and {}.
  Use {} and {} in one sentence.
  Make one sentence with {} and {}.
  Write one sentence about a {} and a {}.
  Put the words {} and {} into a sentence.
  Can you write a sentence with {} and {}?
list
  List {n} {things}.
  Name {n} {things}.
  Give me {n} {things}.
  Write a list of {n} {things}.
  Tell me {n} {things}.
  Can you name {n} {things}?
  Please list {n} {things}.
  What are {n} {things}?
  Write down {n} {things}.
  Think of {n} {things}.
rename
  Change the name {} to {}.
  Replace {} with {}.
  Rewrite this with {1} in place of {0}.
  Write {1} where it says {0}.
  Give {} the new name {}.
  Rename {} to {}.
past
  Rewrite the sentence in the past tense.
  Put this sentence into the past.
  Write this as if it was yesterday.
  Change the sentence to the past tense.
  Say this in the past tense.
  Make this sentence past tense.
pronoun
  Change he to she.
  Rewrite this about a girl.
  Write this sentence with she.
  Make this about a girl, with she and her.
  Use she in place of he.
  Turn he into she in this sentence.
opposite
  What is the opposite of {}?
  Give the opposite of {}.
  Write the opposite of {}.
  Name the opposite of {}.
  What word means the opposite of {}?
  Find the opposite of {}.
  Tell me the opposite of the word {}.
  Opposite of {}?
  {} is the opposite of which word?
  Which word is the opposite of {}?
  Say the opposite of {}.
  I need the opposite of {}.
plural
  What is the plural of {}?
  Give the plural of {}.
  Write the plural of {}.
  One {}, two what?
  Make the word {} plural.
  How do you write more than one {}?
  Tell me the plural of the word {}.
  Plural of {}?
  What do you call two of these: {}?
  Turn {} into a plural.
  Say the plural of {}.
  I need the plural of {}.
sort
  Sort these words in ABC order.
  Put these words in alphabetical order.
  Sort the words from A to Z.
  Write these words in ABC order.
  Arrange the words alphabetically.
  Order these words from A to Z.
count
  How many words are in this list?
  Count the words.
  How many things are here?
  Count the things in this list.
  How many are there?
  What is the number of words?
translate
  What is the Chinese word for {}?
  Translate {} into Chinese.
  How do you say {} in Chinese?
  Write {} in Chinese.
  Give the Chinese word for {}.
  Say {} in Chinese.
  {} in Chinese?
  Tell me the Chinese word for {}.
  What does {} mean in Chinese?
  Put the word {} into Chinese.
sound
  What sound does a {} make?
  What does a {} say?
  Tell me the sound of a {}.
  How does a {} sound?
  Which sound does a {} make?
  Write the sound that a {} makes.
  What do you hear when a {} calls?
  Say the sound of a {}.
  Make the sound of a {}.
  What noise does a {} make?
color
  What color is {}?
  Tell me the color of {}.
  Which color is {}?
  Name the color of {}.
  Give the color of {}.
  What is the color of {}?
  Say what color {} is.
  Write the color of {}.
group
  Is {} {} or {}?
  What is {}: {} or {}?
  Tell me if {} is {} or {}.
  Which is right for {}: {} or {}?
"""


def wordings() -> dict[str, list[str]]:
    """{family: [wording, ...]} of the table."""
    blocks = re.split(r"\n(?! )", WORDING_TABLE.strip())
    return {family: [line.strip() for line in rest] for family, *rest in (block.splitlines() for block in blocks)}


WORDINGS = wordings()

# Group of the first word, group of the second (story_lexicon.py), sentence.
FRAMES = [
    ("animal in the house", "toy", "The {} played with the {}."),
    ("animal", "toy", "A {} ran after the {}."),
    ("animal in the house", "thing in the house", "The {} slept next to the {}."),
    ("animal in the house", "thing in the house", "A little {} was hiding behind the {}."),
    ("animal", "vegetable", "The {} looked at the {} and was hungry."),
    ("animal", "fruit", "The {} sniffed at the {}."),
    ("person", "animal", "The {} saw a {} in the garden."),
    ("person", "animal", "A {} gave some water to the {}."),
    ("person", "vehicle", "The {} waited for the {}."),
    ("person", "vehicle", "A {} was sitting in the {}."),
    ("person", "fruit", "The {} ate a {} for lunch."),
    ("person", "kind of food", "The {} shared a {} with a friend."),
    ("person", "piece of clothing", "The {} lost a {} in the park."),
    ("person", "thing at school", "The {} forgot the {} at home."),
    ("toy", "thing in the house", "The {} was lying next to the {}."),
    ("piece of clothing", "thing in the house", "The {} was on the floor next to the {}."),
]
