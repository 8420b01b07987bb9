"""The words that tasks are written with. Every one, with a space before it, is one token of GPT-2."""

from __future__ import annotations

from patchclamp.specimens.town.lexicon import listed, paired

FEMALE = listed(
    "Alice Amy Angela Anna Anne Barbara Beth Carol Catherine Charlotte Claire Diana Elizabeth Ellen Emily Emma Hannah "
    "Heather Helen Jane Jennifer Jessica Joan Julia Julie Karen Kate Katherine Laura Lauren Linda Lisa Lucy Margaret Maria "
    "Marie Martha Mary Megan Melissa Michelle Molly Monica Nancy Nicole Olivia Rachel Rebecca Ruth Samantha Sandra Sara "
    "Sarah Sophia Sophie Stephanie Susan Victoria Zoe"
)
MALE = listed(
    "Aaron Adam Alan Andrew Anthony Ben Bob Brad Brian Bruce Carl Charles Craig Dan Daniel David Donald Edward Eric Fred "
    "George Greg Harry Henry Ian Jack Jacob James Jason Jeff Jim Joe John Jonathan Joseph Josh Justin Keith Kevin Kyle Leo "
    "Louis Luke Martin Matthew Michael Mike Nathan Nick Oliver Patrick Paul Peter Philip Richard Robert Roger Ryan Scott "
    "Sean Simon Stephen Steve Steven Thomas Tim Todd Tom Tony Walter William"
)
NAMES = FEMALE + MALE
PLACES = listed(
    "store park library station museum market beach airport hotel church school garden hospital office restaurant theater "
    "bakery farm bridge castle"
)
THINGS = listed(
    "drink book letter key ring ball map flower ticket hat phone gift coat cake photo bottle guitar camera basket knife"
)
EVENTS = listed(
    "war strike trial voyage festival plague siege famine project reign journey dispute flood campaign conflict debate "
    "expedition marriage revolution search study tour tournament drought investigation construction occupation mission"
)
NOUNS = paired(
    "key/keys book/books boy/boys girl/girls dog/dogs cat/cats car/cars house/houses door/doors window/windows table/tables "
    "chair/chairs letter/letters picture/pictures teacher/teachers doctor/doctors student/students friend/friends "
    "king/kings lawyer/lawyers farmer/farmers ship/ships tree/trees road/roads bridge/bridges garden/gardens box/boxes "
    "bottle/bottles lamp/lamps author/authors officer/officers guard/guards soldier/soldiers nurse/nurses driver/drivers "
    "horse/horses bird/birds tower/towers wall/walls gate/gates cabinet/cabinets church/churches shop/shops artist/artists "
    "pilot/pilots"
)
"""Singular: plural."""
VERBS = paired("is/are was/were has/have looks/look seems/seem needs/need does/do")
"""Singular: plural."""
ARGUMENTS = listed(
    "page size first files names read path name value key data index count width height color text line user group image "
    "label score state code time date order level mode type model field table node list item cache frame layer token query "
    "batch limit offset port host address message source target option filter format length weight depth scale shape start "
    "stop step seed rate input output parent child root file folder"
)
FILLERS = listed(
    "sky paper bone tree detail mine sector gap population river stone summer winter morning village lake island "
    "forest mountain bread butter sugar coffee music voice story dream shadow silver iron copper glass leather cotton "
    "engine wheel bridge harbor storm cloud rain snow wind fire smoke dust sand salt"
)
ORDINALS = listed("first second third fourth fifth sixth seventh eighth")
