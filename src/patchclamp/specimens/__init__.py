"""Small trained models that ship with the package, each with the corpus and the recipe that made it.

`town`    a language model of 1 M parameters that grew up in an invented town. It does, with a known corpus behind it,
          what the field studies in large models: indirect objects, induction, facts, agreement, years, sentiment.

`histogram`, `deduplicate`, `most_frequent`
          networks of some ten thousand parameters that were taught to compute a small program by a circuit that is known edge
          by edge (`circuit/siit.py` is the recipe). The folder `behaviour` of each holds its control, taught the answers alone.

`smallest`
          says the third smallest of eight numbers (`probe/smallest.py` is the recipe). The folder `by-place` holds its control,
          which says the number in the third place.

`maximum`
          one head that names the largest number of a list (`matrix/maximum.py` is the recipe), small enough to bound.

`exposures`
          read each fact a counted number of times, from never to a hundred, and was then examined about other people, by itself
          and as speakers who lie. The folder `step-read` holds it before any exam.
"""
