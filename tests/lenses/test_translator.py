"""A translator is anything that can be called with a place and its stream."""

from patchclamp.lenses.affine import Affine
from patchclamp.lenses.jacobian import JacobianLens
from patchclamp.lenses.translator import Translator


def test_functions_and_lenses_are_translators():
    assert isinstance(JacobianLens({}), Translator) and isinstance(lambda path, stream: stream, Translator)
    assert not isinstance(3, Translator) and callable(Affine.fit)
