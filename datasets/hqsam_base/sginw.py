"""The 25 sets of SGinW: their names, and how they are numbered through as one benchmark."""

IMAGES_A_SET = 10_000_000
"""The index stage numbers the sets from 1; an image's id is the set's number times this plus its own id."""
CATEGORIES_A_SET = 1000
"""A category's id likewise."""

# Folder names of seginw.zip (sam-hq, seginw/).
SETS = (
    "Airplane-Parts",
    "Bottles",
    "Brain-Tumor",
    "Chicken",
    "Cows",
    "Electric-Shaver",
    "Elephants",
    "Fruits",
    "Garbage",
    "Ginger-Garlic",
    "Hand",
    "Hand-Metal",
    "House-Parts",
    "HouseHold-Items",
    "Nutterfly-Squireel",
    "Phones",
    "Poles",
    "Puppies",
    "Rail",
    "Salmon-Fillet",
    "Strawberry",
    "Tablets",
    "Toolkits",
    "Trash",
    "Watermelon",
)
