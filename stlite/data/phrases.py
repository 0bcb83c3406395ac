"""English phrases of walking back: which steps are undone by which, as tables of patterns.

`reversal` applies them. A line of PAIRS, "open {x} | close {x}", undoes each side by the other;
">" works one way only.
"""


def _any(text: str) -> str:
    """Match any of the words of a text, the longest first."""
    words = sorted(text.split(", "), key=len, reverse=True)
    return "(?:" + "|".join(words) + ")"


PLACES = (
    "room, bedroom, bathroom, living room, dining room, restroom, toilet, kitchen, hall, hallway, "
    "corridor, lobby, office, building, house, home, flat, apartment, shop, store, supermarket, "
    "mall, restaurant, cafe, café, bar, school, classroom, library, museum, hospital, station, "
    "airport, church, garage, garden, yard, courtyard, park, car park, parking lot, balcony, "
    "basement, attic, cellar, closet, pantry, laundry, gym, pool, lift, elevator, car, bus, train, "
    "taxi, vehicle, tram, metro, tunnel, stairwell, staircase, warehouse, workshop, lab, "
    "laboratory, studio, theatre, theater, hotel, area, zone, aisle, gate, door, doorway, entrance"
)
CLOTHES = (
    "shoes, shoe, boots, slippers, sandals, socks, coat, jacket, raincoat, hoodie, sweater, "
    "jumper, shirt, t-shirt, trousers, pants, dress, skirt, hat, cap, helmet, scarf, "
    "gloves, glove, "
    "mask, glasses, sunglasses, goggles, headphones, headset, earphones, watch, ring, belt, tie, "
    "apron, backpack, vest, uniform, seat belt, lid, cover"
)
DEVICES = (
    "light, lights, lamp, lamps, tv, television, radio, fan, heater, heating, oven, stove, hob, "
    "kettle, computer, laptop, monitor, screen, projector, printer, machine, washing machine, "
    "dishwasher, vacuum, vacuum cleaner, tap, faucet, water, shower, gas, engine, music, torch, "
    "flashlight, phone, camera, volume, sound, heat, brightness, temperature, alarm, air "
    "conditioner, air conditioning, power, switch"
)
ROADS = "hall, hallway, corridor, street, road, path, aisle, lane, passage, alley, walkway, track"
STAIRS = "stairs, steps, staircase, ladder, ramp, slope, hill, escalator, flight of stairs"
LIFTS = "lift, elevator, escalator, stairs"

DETERMINER = r"(?:(?:the|a|an|your|my|his|her|their|its|this|that|these|those) )"
WORD = r"[\w'’-]+"
THING = rf"{DETERMINER}?(?:{WORD} ){{0,5}}{WORD}"  # "the big red box"
VEHICLES = (
    "bus, train, tram, metro, plane, boat, ship, ferry, bike, bicycle, horse, escalator, lift, "
    "elevator, stage, platform, scale, scales, treadmill, ladder, car, taxi, van, truck, "
    "bed, pool, "
    "bath, bathtub, shower"
)
PUSHED = "door, doors, gate, drawer, lever, handle, chair"


def _thing(nouns: str) -> str:
    """Match one of the nouns, with a determiner and adjectives before it."""
    return rf"{DETERMINER}?(?:{WORD} ){{0,3}}?{_any(nouns)}"


# what may stand before the verb, and after the step, without a change of its meaning
ADVERB = _any(
    "quickly, slowly, carefully, gently, quietly, immediately, again, now, briefly, directly, "
    "just, simply, slightly, then, and, and then, next, please, also"
)
LEAD = rf"(?P<lead>(?:{ADVERB},? )*)"
TRAIL = (
    r"(?P<trail>(?: (?:again|quickly|slowly|carefully|gently|quietly|immediately|right away))*"
    r"[.!]?)"
)

# ---- turns and sides

SIDE = "(?P<side>left|right)"
DEGREE = "(?:slightly|slight|sharply|sharp|hard|gently)"
AT = rf"(?: (?:at|by|near|around|round|next to|beside|opposite|in front of) {THING})?"
ANGLE = r"(?: (?:by )?\d+ ?(?:degrees|°))?"
HAND = r"(?:[ -]hand side)?"
TURNS = [
    # turn left, bear slightly right, turn to the left, turn left at the gate
    rf"(?:turn|bear|veer|go|walk|head|move|swing|curve|rotate|step|face|look)(?: {DEGREE})? "
    rf"(?:to (?:the|your) )?{SIDE}{HAND}(?: {DEGREE})?{ANGLE}{AT}",
    # take a left, make a sharp right turn
    rf"(?:take|make|do|hang) (?:a |another |the next )?(?:{DEGREE} )?{SIDE}(?: turn)?{AT}",
    # left, right turn, sharp left
    rf"(?:{DEGREE} )?{SIDE}(?: turn)?{AT}",
    # move one step to the right
    rf"(?:move|step|take|go) (?:a|one|two|three|\d+) steps? (?:to (?:the|your) )?{SIDE}",
    # pass the shop on the left
    rf"(?:pass|walk past|go past|pass by|walk by|go by) {THING} on (?:the|your) {SIDE}{HAND}",
]

# ---- steps that are the same both ways

GOING = (
    r"(?:(?:go|walk|continue|keep|head|move|proceed|carry on|keep going|keep walking|"
    r"continue walking|continue going|run|drive|stay)(?: on)?)"
)
AHEAD = r"(?:right |straight )?(?:straight ahead|straight on|straight|forwards?|ahead|on)"
FAR = (
    r"(?: for)? (?:a bit|a while|a few steps|some steps|"
    r"\d+(?:\.\d+)? ?(?:m|meters?|metres?|steps?))"
)
BESIDE = rf"(?:past|along|through|across|over|under|between|by|down) {THING}"
SAME = [
    rf"(?:{GOING} )?{AHEAD}(?:{FAR})?",
    rf"{GOING}(?:{FAR})?",
    rf"{GOING}(?: {AHEAD})?(?: (?:past|along|through|across|over|under|between) {THING})",
    rf"{GOING}(?: {AHEAD})? down {_thing(ROADS)}",
    rf"{GOING}(?: {AHEAD})? \(?(?:past|along|through|across) {THING}\)",
    rf"(?:cross|pass|follow|pass by) {THING}",
]
ALWAYS_SAME = [  # in lists of actions too, where nobody turns around at the end
    rf"(?:take|ride|use) {_thing(LIFTS)}",
    r"(?:turn (?:a?round|back)|make a u-turn|u-turn|do a u-turn)",
    r"(?:wait|stop|pause|look around)",
]

# ---- pairs, each undone by the other: {x} is a thing

PAIRS = """
open {x} | close {x}
shut {x} > open {x}
lock {x} | unlock {x}
pick up {x} | put down {x}
pick {x} up | put {x} down
raise {x} | lower {x}
push {pushed} | pull {pushed}
stand up | sit down
stand up from {x} | sit down on {x}
lie down > get up
kneel down > stand up
crouch down > stand up
squat down > stand up
bend down > stand up
put on {clothes} | take off {clothes}
put {clothes} on | take {clothes} off
put on {device} > turn off {device}
put out {device} > turn on {device}
switch on {x} | switch off {x}
switch {x} on | switch {x} off
turn on {device} | turn off {device}
turn {device} on | turn {device} off
turn up {device} | turn down {device}
turn {device} up | turn {device} down
plug in {x} | unplug {x}
plug {x} in > unplug {x}
put {x} into {y} | take {x} out of {y}
put {x} in {y} > take {x} out of {y}
place {x} in {y} > take {x} out of {y}
put {x} on {y} | take {x} off {y}
put {x} onto {y} > take {x} off {y}
place {x} on {y} > take {x} off {y}
fasten {x} | unfasten {x}
buckle {x} | unbuckle {x}
button {x} | unbutton {x}
zip {x} | unzip {x}
zip up {x} > unzip {x}
tie {x} | untie {x}
wrap {x} | unwrap {x}
pack {x} | unpack {x}
fold {x} | unfold {x}
load {x} | unload {x}
cover {x} | uncover {x}
connect {x} | disconnect {x}
attach {x} | detach {x}
screw in {x} > unscrew {x}
roll up {x} | unroll {x}
hang up {x} | take down {x}
start {device} | stop {device}
enter {place} | leave {place}
exit {x} > enter {x}
go into {x} | go out of {x}
walk into {x} | walk out of {x}
walk in {place} > walk out of {place}
step into {x} | step out of {x}
climb into {x} | climb out of {x}
run into {place} | run out of {place}
go in {place} > go out of {place}
get in {vehicle} > get out of {vehicle}
get into {x} | get out of {x}
get on {vehicle} | get off {vehicle}
step onto {x} | step off {x}
step on {vehicle} > step off {vehicle}
board {vehicle} > get off {vehicle}
get in | get out
go inside | go outside
go in | go out
come in > go out
walk inside | walk outside
walk in | walk out
step inside | step outside
step in | step out
go upstairs | go downstairs
walk upstairs | walk downstairs
run upstairs | run downstairs
head upstairs | head downstairs
come upstairs > go downstairs
upstairs | downstairs
go up | go down
walk up | walk down
go up {stairs} | go down {stairs}
walk up {stairs} | walk down {stairs}
run up {stairs} | run down {stairs}
climb up {stairs} | climb down {stairs}
climb {stairs} > go down {stairs}
climb up | climb down
ascend {stairs} | descend {stairs}
take {lift} up | take {lift} down
ride {lift} up | ride {lift} down
go up {floors} | go down {floors}
"""

SLOTS = {  # what may stand in a pair's place
    "x": THING,
    "y": THING,
    "clothes": _thing(CLOTHES),
    "device": rf"(?:it|them|{_thing(DEVICES)})",
    "vehicle": _thing(VEHICLES),
    "pushed": _thing(PUSHED),
    "place": rf"(?:(?:through|by|via) )?{_thing(PLACES)}",
    "stairs": _thing(STAIRS),
    "lift": _thing(LIFTS),
    "floors": r"(?:one|two|three|a|\d+) (?:floors?|levels?|flights?(?: of stairs)?)",
}
NO_OBJECTS = {  # objects with which the verb means something else
    "close": "ranks|deal|account|distance",
    "open": "fire",
    "pick up": "pace|speed|kids|children|friends?|passengers?|call|signal",
    "turn up": f"{_any(ROADS)}|collar",
    "turn down": f"{_any(ROADS)}|offer",
    "get into": "line|position",
    "go into": "details?",
    "exit": "program|app|menu",
    "raise": "alarm|question|money",
    "hang up": "phone|call",
    "roll up": "sleeves?|window",
    "step onto": "brake|gas|pedal",
}
