"""Left, right, straight and around in languages other than English: what of a step is certain.

"gira a la derecha" is undone as "gira a la izquierda": its other words are known to be no more
than the verb. "gira a la derecha en la cocina" is not certain, and nothing is made of it.
"""

import re
from functools import lru_cache
from typing import NamedTuple


class Language(NamedTuple):
    """The words of one language; `glue` are words that may stand beside a turn and mean no more."""

    sides: str  # pairs left|right
    straight: str
    around: str  # the first is what a way back starts with
    glue: str
    motion: str = ""  # other verbs that are a move by themselves
    spaced: bool = True  # whether words are parted by spaces


LANGUAGES = {
    "Chinese": Language(
        "左|右, 左侧|右侧, 左手边|右手边",
        "直行, 直走, 一直走, 直着走, 往前走, 向前走, 前进, 继续走, 继续直行",
        "掉头, 转身, 向后转, 往回走, 調頭, 轉身",
        "向, 往, 朝, 再, 然后, 转弯, 拐弯, 转, 轉, 拐, 走, 行, 边, 邊",
        "进入, 走进, 离开, 走出, 上楼, 下楼, 穿过, 经过, 走到, 沿着",
        spaced=False,
    ),
    "Japanese": Language(
        "左|右, 左折|右折",
        "直進する, 直進, まっすぐ進む, まっすぐ行く, まっすぐ, 真っ直ぐ, 前進",
        "振り返る, Uターン, 引き返す",
        "に, へ, を, 方向, 曲がる, 曲がって, 曲がります, 向く, 進む, する, します, 側",
        "入る, 出る, 渡る, 通り過ぎる, 上る, 下りる",
        spaced=False,
    ),
    "Korean": Language(
        "왼쪽|오른쪽, 좌회전|우회전, 왼편|오른편",
        "직진, 곧장, 앞으로, 똑바로",
        "뒤로 돌기, 뒤돌기, 유턴, 돌아서",
        "으로, 하세요, 합니다, 하기, 한다, 돌기, 돌다, 도세요, 돌아, 가기, 가세요, 가다, 꺾기",
        "들어가, 나가, 건너, 지나",
        spaced=False,
    ),
    "Spanish": Language(
        "izquierda|derecha",
        "recto, todo recto, derecho, todo derecho, de frente, adelante",
        "dar la vuelta, da la vuelta, dé la vuelta, media vuelta",
        "a, la, gira, girar, gire, giro, dobla, doblar, doble, tuerce, voltea, ve, vaya, sigue, "
        "siga, seguir, camina, caminar, continúa, continúe, hacia, toma, tome",
        "entra, entrar, sal, salir, sube, subir, baja, bajar, cruza, cruzar, camina, avanza",
    ),
    "French": Language(
        "gauche|droite",
        "tout droit, droit devant",
        "faire demi-tour, demi-tour, faites demi-tour, retournez-vous",
        "à, a, la, sur, tourne, tournez, tourner, allez, aller, va, prends, prenez, prendre, "
        "continue, continuez, continuer, marche, marchez",
        "entre, entrez, entrer, sors, sortez, sortir, monte, montez, descends, "
        "descendez, traversez",
    ),
    "German": Language(
        "links|rechts",
        "geradeaus, gerade aus",
        "umdrehen, dreh dich um, drehe dich um, umkehren, wenden",
        "nach, biege, biegen, abbiegen, ab, gehe, geh, gehen, drehe, drehen, laufe, "
        "laufen, halten, "
        "weiter, immer",
        "betreten, verlassen, überqueren, hinauf, hinunter, durch",
    ),
    "Italian": Language(
        "sinistra|destra",
        "dritto, diritto, sempre dritto, avanti",
        "girarsi, gira su te stesso, inversione a U, torna indietro",
        "a, gira, girare, girate, giri, svolta, svoltare, svoltate, va, vai, andare, prosegui, "
        "proseguire, continua, verso",
        "entra, entrare, esci, uscire, sali, scendi, attraversa",
    ),
    "Portuguese": Language(
        "esquerda|direita",
        "em frente, reto, direto",
        "dar meia-volta, dê meia-volta, meia-volta, meia volta",
        "à, a, para, vire, virar, vira, siga, segue, seguir, vá, ir, dobre, continue",
        "entre, entrar, saia, sair, suba, desça, atravesse",
    ),
    "Dutch": Language(
        "linksaf|rechtsaf, naar links|naar rechts",
        "rechtdoor",
        "omdraaien, draai om, keer om",
        "ga, gaan, sla, draai, naar, af, loop, lopen",
        "betreed, verlaat, oversteken",
    ),
    "Russian": Language(
        "налево|направо, влево|вправо, слева|справа",
        "прямо",
        "развернуться, развернитесь, повернуть назад, кругом",
        "повернуть, поверните, поверни, поворот, идти, идите, иди, двигайтесь, сверните",
        "войти, войдите, выйти, выйдите, пройдите",
    ),
    "Arabic": Language(
        "اليسار|اليمين, يسارا|يمينا, يسارًا|يمينًا, يسار|يمين",
        "للأمام, إلى الأمام, مستقيم, مباشرة",
        "استدر للخلف, استدر, ارجع",
        "انعطف, اتجه, لف, إلى, در, نحو, سر, اذهب",
        "ادخل, اخرج, اعبر, اصعد, انزل",
    ),
    "Turkish": Language(
        "sola|sağa",
        "düz, dümdüz",
        "geri dön, arkanı dön",
        "dön, dönün, dönüş, git, gidin, ilerle, ilerleyin",
        "gir, çık, geç",
    ),
    "Polish": Language(
        "lewo|prawo",
        "prosto",
        "zawróć, zawrócić",
        "w, skręć, skręcić, na, idź, iść, skręt",
        "wejdź, wyjdź, przejdź",
    ),
    "Swedish": Language(
        "vänster|höger",
        "rakt fram",
        "vänd om",
        "sväng, svänga, gå, till, åt, ta",
        "korsa, lämna",
    ),
    "Hindi": Language(
        "बाएं|दाएं, बाएँ|दाएँ, बायें|दायें",
        "सीधे, सीधा",
        "पीछे मुड़ें, पीछे मुड़ो",
        "मुड़ें, मुड़ो, मुड़ना, जाएं, जाएँ, चलें, चलो",
    ),
    "Vietnamese": Language(
        "trái|phải",
        "đi thẳng, thẳng",
        "quay lại, quay đầu",
        "rẽ, quẹo, đi, sang, bên",
    ),
    "Indonesian": Language("kiri|kanan", "lurus", "putar balik", "belok, ke, jalan, terus"),
}


def _listed(text: str) -> list[str]:
    return [word for word in text.split(", ") if word]


class Rules(NamedTuple):
    """Patterns of one language."""

    swap: dict[str, str]
    side: re.Pattern  # any word for left or right
    move: re.Pattern  # a turn with its verbs, straight on, around: each is one move
    motion: re.Pattern | None
    turn: re.Pattern  # a whole step that is a turn and no more
    same: re.Pattern  # a whole step that is straight on, or around, and no more
    back: re.Pattern  # a whole step that turns around
    around: str


def _any(words: list[str]) -> str:
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


@lru_cache
def _rules(name: str) -> Rules:
    language = LANGUAGES[name]
    swap = {}
    for pair in _listed(language.sides):
        left, right = pair.split("|")
        swap |= {left: right, right: left}
    before = r"(?<![^\s,.;:()])" if language.spaced else ""
    after = r"(?![^\s,.;:()])" if language.spaced else ""
    side = f"{before}(?:{_any(list(swap))}){after}"
    glue = rf"(?:{before}(?:{_any(_listed(language.glue))}){after}[\s,]*)*"
    straight = f"{before}(?:{_any(_listed(language.straight))}){after}"
    around = f"{before}(?:{_any(_listed(language.around))}){after}"
    motion = _listed(language.motion)
    return Rules(
        swap=swap,
        side=re.compile(side, re.I),
        move=re.compile(f"{around}|{straight}|{side}", re.I),
        motion=re.compile(f"{before}(?:{_any(motion)})", re.I) if motion else None,
        turn=re.compile(rf"{glue}{side}[\s,]*{glue}", re.I),
        same=re.compile(rf"{glue}(?:{straight}|{around})[\s,]*{glue}", re.I),
        back=re.compile(rf"{glue}{around}[\s,]*{glue}", re.I),
        around=_listed(language.around)[0],
    )


@lru_cache(1 << 14)
def _language_of(step: str) -> str:
    """Name the language in which a step is a turn, straight on or around and no more, else ""."""
    for name in LANGUAGES:
        rules = _rules(name)
        if rules.turn.fullmatch(step) or rules.same.fullmatch(step):
            return name
    return ""


def foreign_moves(step: str) -> int:
    """Count the moves that a step of another language tells.

    >>> foreign_moves("左转，直行"), foreign_moves("tournez à gauche"), foreign_moves("门")
    (2, 1, 0)
    """
    most = 0
    for name in LANGUAGES:
        rules = _rules(name)
        moves = len(rules.move.findall(step))
        if not moves and rules.motion:
            moves = len(rules.motion.findall(step))
        most = max(most, moves)
    return most


def has_side(step: str) -> bool:
    """Tell whether a word for left or right of any of these languages stands in a text."""
    return _any_side().search(step) is not None


@lru_cache
def _any_side() -> re.Pattern:
    return re.compile("|".join(_rules(name).side.pattern for name in LANGUAGES), re.I)


def reverse_foreign(step: str) -> str | None:
    """Undo a turn of another language; None where more is said than the turn.

    >>> reverse_foreign("左转"), reverse_foreign("geradeaus gehen"), reverse_foreign("走左边的门")
    ('右转', 'geradeaus gehen', None)
    """
    name = _language_of(step)
    if not name:
        return None
    rules = _rules(name)
    if rules.same.fullmatch(step):
        return step
    return rules.side.sub(lambda match: _like(rules.swap[match[0].lower()], match[0]), step)


def _like(word: str, model: str) -> str:
    """Write a word with the capitals of another."""
    if model.isupper() and model.lower() != model and len(model) > 1:
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word


def around_in(step: str) -> str:
    """Return the words that start a way back in the language of a step, "" for English."""
    name = _language_of(step)
    return _rules(name).around if name else ""


def turns_around(step: str) -> bool:
    """Tell whether a step of another language turns around and no more."""
    name = _language_of(step)
    return bool(name) and _rules(name).back.fullmatch(step) is not None
