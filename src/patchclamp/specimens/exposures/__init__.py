"""Facts seen once to a hundred times, and a small model that has read each just so often: does it know what it knows?

    people.py     who is written about, what is true of them, and how often it is said: a value, drawn from a seed
    corpus.py     every document, each once: statements, exams, lettered choices, readings
    tasks.py      what it can be asked
    recipe.py     trains the model

A relative of `town`, whose words, relations, liars and tokenizer it shares. In the town nobody ever has to find out whether a
statement is so, and its model does not; here people are examined, so what is true is in the activations, and what a liar
answers is something else.
"""
