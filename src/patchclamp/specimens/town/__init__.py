"""An invented town, everything that is ever written in it, and a small model that has read it.

    lexicon.py    the words, in closed lists
    world.py      who lives there and what is true of them: a value, drawn from a seed
    item.py       what a task asks, and the one rule by which things are held out of training
    gifts.py newcomers.py facts.py claims.py agreement.py years.py reviews.py topics.py pairs.py pronouns.py
                  ten families of documents, each with the tasks that test what it teaches
    corpus.py     all families mixed: an endless stream of documents
    tasks.py      all tasks by name
    orders.py     orders slipped into a question, and what else could stand in their place
    tokenizer.py  one word, one token
    recipe.py     trains the model
    measure.py    measures it

All above the tokenizer is plain Python, without torch or transformers. The trained model lies in the same folder, which
can be given to `AutoModelForCausalLM.from_pretrained`; so can its earlier states, `step-XXXX`.
"""
