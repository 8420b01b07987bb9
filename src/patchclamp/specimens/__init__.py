"""Small trained models that ship with the package, each with the corpus and the recipe that made it.

`town`    a language model of 1 M parameters that grew up in an invented town. It does, with a known corpus behind it,
          what the field studies in large models: indirect objects, induction, facts, agreement, years, sentiment.
"""
