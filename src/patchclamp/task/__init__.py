"""Task: questions with a clean and a corrupt form, the answers to them, and the roles that their words play.

    ioi.py greater_than.py docstring.py pronouns.py agreement.py facts.py brackets.py smallest.py induction.py
                  one task a file: an endless stream of pairs from a source of randomness
    town.py       what the bundled town can be asked, as pairs
    tasks.py      all of them by name: `draw("ioi", 100, seed=0, tokenizer=model.tokenizer)`
    load.py       pairs from files that others wrote
    blimp.py      minimal pairs of sentences from files, and which of the two a model finds more probable
    template.py   sentences with slots
    words.py      the words of the sentences, each of them one token of GPT-2

All of it but blimp.py, which runs the model, is plain Python, without torch or transformers.
"""
