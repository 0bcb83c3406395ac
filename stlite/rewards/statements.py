"""The words that state an answer, in eight languages, as patterns.

Languages: English, Chinese, Spanish, French, German, Korean, Japanese, Vietnamese.

A letter stands as an answer after words that lead up to it ("so the answer is B", "elijo B",
"答案是B") or before words that judge it ("B is correct", "B가 정답"). Elsewhere it is part of a
name: "turn left at gate B", "vitamin B", "plan B".
"""

import re

LATIN = "A-Za-z0-9À-ɏḀ-ỿ"
GAP = r"(?:(?![.!?。！？]\s)[\W_]){0,8}"  # marks between two words, but not the end of a sentence


def _words(*phrases: str) -> str:
    """Join phrases in Latin letters into one pattern of whole words."""
    return rf"(?<![{LATIN}])(?:{'|'.join(phrases)})(?![{LATIN}])"


# ---- letters -----------------------------------------------------------------------------------

CAPITAL = r"(?-i:[A-H])"
SMALL_A = (  # "a" is the article, but for "a)", "a or b", "option a"
    r"a(?=\s{0,2}[^\w\s'’-]|\s(?:or|and)\s[b-h]\b)"
    r"|(?:(?<=option )|(?<=choice )|(?<=letter )|(?<=answer )|(?<=opción )|(?<=antwort )|(?<=: ))"
    r"a(?=\s*(?:\n|\Z))"
)
SMALL = rf"(?-i:[b-h]|{SMALL_A})"
BEFORE = rf"(?<![{LATIN}'’&+])(?<![{LATIN}][-.])"  # not "1B", "plan-B", "e.B"
BEHIND = rf"(?![{LATIN}'’]|[-.][{LATIN}])"  # not "B1", "B-side", "B.Sc", "D'accord"
LETTER = rf"{BEFORE}(?:{CAPITAL}|{SMALL}){BEHIND}"
JOINING = _words(
    *("or", "and", "nor", "then", "plus", "vs", "maybe", "perhaps", "possibly", "option"),
    *("o", "y", "u", "e", "opción", "ou", "et", "oder", "und", "hoặc", "hay", "và"),
)
JOINING_CJK = "或者?|和|还是|与|及|또는|혹은|이나|와|과|および|または|や|か|と"
SEPARATOR = rf"(?:[,;/、，；\n|\\–—→&]|->|\.\.+|{JOINING}|{JOINING_CJK})"
JOIN = rf"[\W_]{{0,4}}?{SEPARATOR}[\W_]{{0,4}}(?:{JOINING}[\W_]{{0,4}}){{0,2}}"
LETTERS = rf"{LETTER}(?:{JOIN}{LETTER}){{0,7}}"  # "B", "A or B", "A, C and D"
LETTER_LIST = re.compile(rf"(?i){LETTER}{JOIN}{LETTER}")

# ---- what leads up to an answer ----------------------------------------------------------------

OF_ANSWER = r"(?:final|correct|right|best|most likely|likely|only|chosen|selected|overall|closest)"
ENGLISH_NOUN = (  # "the correct answer to this question"
    rf"(?:(?:the|my|our|your) )?(?:{OF_ANSWER} ){{0,3}}"
    r"(?:answer|ans|choice|option|solution|selection|guess|pick|verdict|conclusion|result|final"
    r"|match|fit|response|vote|prediction|letter|winner|one that (?:best )?(?:fits|matches)"
    r"|(?<=right )one|(?<=correct )one|(?<=best )one)"
    r"(?: (?:here|key|left|(?:among|of) (?:these|those|the (?:four )?options)"
    r"|i(?: would|['’]d| will|['’]ll)? (?:give|choose|pick|select)|that (?:best )?(?:fits|remains|matches|works|applies)"
    r"|(?:to|for) (?:this|the) question))?"
)
ENGLISH_BEING = (
    r"(?:is(?: (?:indeed|therefore|thus))?|(?:would|should|must|will)(?: (?:therefore|thus))? be"
    r"|has (?:got )?to be|(?:would|will) have to be|can only be|was|remains)"
)
AUXILIARY = (
    r"(?:['’](?:d|ll|m|ve)| would| will| must| am| have| want to)?(?: have to| like to| gonna)?"
)
CHOOSING = (
    r"(?:choose|chose|chosen|pick|picked|select|selected|go|going|say|think|believe|guess|conclude"
    r"|answer|opt|settle|vote|picking|choosing|selecting|guessing|lean|leaning)"
    r"(?: (?:with|for|on|that|towards?))?"
)
ENGLISH = (
    ENGLISH_NOUN,
    ENGLISH_BEING,
    rf"(?:i|we){AUXILIARY}(?: (?:therefore|thus|then))? {CHOOSING}",  # "I'd go with"
    r"gonna go with|let(?: me|['’]s| us) (?:go with|say|choose|pick|select)",
    r"(?:that|this|which) makes|the (?:first|second|third|fourth|last) (?:option|choice)",
    r"(?:it|that|this)(?:['’]s| is| was| must be| has (?:got )?to be| should be| would be"
    r"| would have to be| can only be)",
    r"(?:i(?:['’]m| am) )?(?:(?:quite|fairly|very|pretty|absolutely|completely|really|almost) )?"
    r"(?:sure|confident|certain|convinced)(?: that)?",
    r"(?:this|that|it|(?:the |all )?evidence|everything) (?:points?|leads? (?:me|us)) to",
    r"(?:this|that) is why|given (?:the above|all (?:this|that)|this|that)|everything considered",
    r"without (?:a |any )?doubt|no doubt|in the end|in short|to sum up|all in all|correct",
    r"(?:it )?(?:looks? like|(?:seems?|appears?) (?:to be|like))|only",
    r"(?:it|that|this|which) (?:matches|corresponds to|means|gives|fits|leads to|is option)",
    r"(?:that|this|which) leaves(?: (?:us|me))?(?: with)?",
    r"(?:choose|select|pick|choosing|selecting|selected|going with)",
    r"therefore|thus|hence|so|consequently|accordingly|as a result|in conclusion|to conclude",
    r"in summary|overall|finally|clearly|clear|obviously|definitely|actually|but|instead|rather",
    r"yes|no|okay|ok|sure",
    r"(?:based on|according to|judging by|going by|from) "
    r"(?:this|that|(?:this|the) (?:video|film|clip|frames|evidence))",
    r"most likely|most probably|likely|probably|either|both|letter|boxed|text|textbf|mathrm",
    r"as follows|the following",
)
SPANISH = (
    r"(?:(?:la|mi|tu) )?(?:mejor )?(?:respuesta|opción|opcion|alternativa)"
    r"(?: (?:correcta|final|es|más|adecuada|probable|acertada)){0,3}",
    r"(?:la )?correcta|es|sería|seria|debe ser|letra|la letra|por (?:lo )?tanto|por eso|así que|asi que",
    r"la|entonces|en conclusión|pero|sino|yo|creo que|pienso que|diría que|me quedo con",
    r"elijo|escojo|selecciono|elegiría|opto por|voy con|diría|solución",
    r"(?:estoy )?segur[oa](?: de)? que",
)
FRENCH = (
    r"(?:(?:la|ma) )?(?:bonne |meilleure )?(?:réponse|reponse|solution)"
    r"(?: (?:correcte|finale|exacte|est)){0,3}",
    r"l['’]option|(?:la |ma )?lettre|le choix|mon choix|est|serait|doit être|c['’]est|ce serait",
    r"donc|par conséquent|ainsi|en conclusion|mais|alors|je (?:choisis|sélectionne|prends|dirais)",
    r"j['’]opte pour|je suis sûre? que|je réponds|il s['’]agit de(?: la)?|choix",
    r"je (?:pense|crois) que",
)
GERMAN = (
    r"(?:(?:die|meine) )?(?:richtige |korrekte |endgültige |beste )?(?:antwort|lösung|wahl)"
    r"(?:(?:möglichkeit)? (?:lautet|ist|wäre))?",
    r"lautet|ist|wäre|es ist|das ist|(?:der )?buchstabe|also|daher|deshalb|somit|folglich|sondern",
    r"aber|ich (?:wähle|nehme|denke|glaube|sage|tippe auf|entscheide mich für|würde)",
    r"(?:richtig|korrekt)(?: ist)?|es muss|(?<!nicht sicher, )dass|(?:antwort)?möglichkeit|auswahl",
    r"ich bin (?:mir )?sicher",
)
VIETNAMESE = (
    r"(?:đáp án|câu trả lời|lựa chọn|phương án)(?: (?:đúng|cuối cùng|chính xác|của tôi|là)){0,3}",
    r"trả lời|tôi (?:sẽ )?(?:chọn|nghĩ)|chọn|là|do đó|vì vậy|vì thế|vậy|nên|theo tôi|mà",
)
LATIN_LEADS = _words(*ENGLISH, *SPANISH, *FRENCH, *GERMAN, *VIETNAMESE)
CHINESE = (
    "(?:最终|最后|正确)?的?(?:答案|选项|选择)|我会?选择?|我认为|我觉得|应该?|应选|因此|所以|故|综上(?:所述)?"
    "|显然|肯定|一定|那么?|只有|就?是|为|选|本题|这道?题|正确的?|而是|但"
)
KOREAN = "최종|정답|답변?|답안|선택지?|보기|옵션|올바른|따라서|그러므로|그래서|결론적으로|저는|제|생각에는?|나는|은|는|이|가"
JAPANESE = (
    "最終的?な?|最も(?:適切|適当|正確)な?|正しい|答え|正解|解答|回答|選択肢|したがって|よって|ゆえに"
    "|選ぶなら|だから|つまり|私は|なので|おそらく|きっと"
    "|は|が|の"
)
LEAD = re.compile(rf"(?i){GAP}(?:{LATIN_LEADS}|{CHINESE}|{KOREAN}|{JAPANESE}){GAP}")
HEDGE = re.compile(  # read in an answer tag alone: one letter is given there, if in doubt
    rf"(?i){GAP}{_words('maybe', 'perhaps', 'possibly', '(?:it )?(?:could|might|may) be')}{GAP}"
)

# ---- what names an answer wherever it stands ---------------------------------------------------

ENGLISH_ANSWER = (
    rf"{ENGLISH_NOUN}[\W_]{{0,6}}(?:\b{ENGLISH_BEING}\b|(?<=[:=]))"  # "answer is", "answer:"
)
SPANISH_ANSWER = r"(?:respuesta|opción|opcion)(?: correcta| final){0,2}(?: es\b| sería\b| ?:)"
FRENCH_ANSWER = r"(?:réponse|reponse|option)(?: correcte| finale){0,2}(?: est\b| serait\b| ?:)"
GERMAN_ANSWER = r"(?:antwort|lösung)(?: lautet\b| ist\b| wäre\b| ?:)"
VIETNAMESE_ANSWER = r"(?:đáp án|câu trả lời)(?: đúng| cuối cùng| của tôi){0,2}(?: là\b| ?:)"
CJK_ANSWER = "答案|正确的?选项|答え|正解|정답|답은"
BOX = r"\\boxed\{|<\|begin_of_box\|>"  # "\boxed{B}"
JUDGED_NEXT = r"(?:that|option|choice)(?=[\W_]{0,4}[A-Ha-h][\W_]{0,4}(?:is|seems|would be)\b)"
ANSWER_NOUN = (
    rf"(?<![{LATIN}])(?:{ENGLISH_ANSWER}|{SPANISH_ANSWER}|{FRENCH_ANSWER}|{GERMAN_ANSWER}"
    rf"|{VIETNAMESE_ANSWER}|{JUDGED_NEXT})|{CJK_ANSWER}|{BOX}"
)
NOUN = re.compile(rf"(?i){ANSWER_NOUN}")
SENTENCE_START = r"\A|\n|(?<=[.!?])\s(?:or\b)?|[。！？]"
CLAUSE_START = r"[,;:，；：、]|\s[-–—]\s|[—–→]"
START = re.compile(
    rf"(?i)(?P<sentence>{SENTENCE_START})|(?P<noun>{ANSWER_NOUN})|(?P<clause>{CLAUSE_START})"
)

# ---- what may follow a letter that is an answer ------------------------------------------------

BEING = r"(?:is|seems|appears|looks|would be|must be|should be|has to be)(?: to be)?"
RIGHT_ONE = (  # "is clearly the right answer"
    r"(?: (?:clearly|definitely|indeed|probably|the|my|our|most|also|only|best|final|correct))*"
    r" (?:correct|right|best|better|true|answer|choice|option|likely|one|accurate|plausible"
    r"|closest|pick|consistent|probable|suitable|appropriate|logical|reasonable)"
    r"(?: (?:answer|choice|option|one))?"
    r"(?! (?:turn|next|after|before|behind|hand|side|beside|of|to|way|now|at|than)\b)"
)
JUDGED_LATIN = (
    rf" {BEING}{RIGHT_ONE}\b",
    r" (?:it|that) is\b",  # "B it is"
    r" (?:the|my) (?:(?:only|most|best|correct|right|likely|final) )*(?:answer|choice|option|one)\b",
    r" is what i(?:['’]d| would|['’]ll)? (?:select|choose|pick|answer|say)\b",
    r" (?:best )?(?:fits|matches|describes|corresponds|makes sense)(?! (?:worse|less|better)\b)"
    r"(?=(?: \w+){0,5}[\W_]*(?:\Z|\n|[.!,;]\s))",  # "B fits best."
    r" es (?:la )?(?:mi )?(?:respuesta|opción|opcion|correct[ao])\b",
    r" est (?:la |ma )?(?:bonne )?(?:réponse|option|correcte?|juste)\b",
    r" (?:ist|wäre) (?:die )?(?:richtig|korrekt|meine antwort|beste|antwort)",
    r" (?:(?:richtig|korrekt)(?: ist)?|sein|sagen|wählen|nehmen)(?=[\W_]*(?:\Z|\n|[.!]\s))",  # "daher ist B richtig"
    r" là (?:đáp án|câu trả lời|phương án|lựa chọn|đúng)| đúng\b",
)
JUDGED_CJK = (
    r"\s?(?:项|选项)?(?:才|就)?是?(?:最)?(?:正确|对的?(?!面)|答案|符合)|\s?才是(?!\w)|\s?(?:项|选项)(?!\w)",
    r"\s?(?:번|을|를)?(?:이|가)? ?(?:정답|맞|옳|올바)|\s?(?:번)?(?:입니다|이다|예요|이에요|임|일 것)",
    r"\s?(?:번)?(?:을|를) (?:선택|고르|고릅)|\s?(?:라고|이라고) (?:생각|봅|본)|\s?번(?=[\W_]*(?:\Z|\n))",
    r"\s?(?:です|だ(?!け)|である|でしょう|になります)|\s?が(?:正解|正しい|答え|最も)",
    r"\s?を(?:選|選択)|\s?だ?と(?:思|考え)",
)
JUDGED = rf"(?P<judged>[)\]*\"”.]{{0,3}}(?:{'|'.join(JUDGED_LATIN)}|{'|'.join(JUDGED_CJK)}))"
REASON_WORDS = _words(
    *("because", "since", "as", "while", "whereas", "given", "for the", "based", "due to", "which"),
    *("so", "here", "with", "for sure", "rather", "but", "in this"),
    *("porque", "ya que", "pues", "car", "parce que", "puisque", "weil", "da", "denn", "vì", "bởi"),
)
BECAUSE = re.compile(  # "B, because …"
    rf"(?i)[,.]?\s{_words('because', 'since', 'as(?! in)', 'porque', 'car', 'parce que', 'weil', 'vì')}"
    r"|[，。、]?\s?(?:因为|なぜなら)"
)
SURE = _words(
    *(
        "for sure",
        "definitely",
        "certainly",
        "obviously",
        "clearly",
        "probably",
        "likely",
        "please",
    ),
    *("i think", "i guess", "i believe", "i am sure", "i'm sure", "thanks?(?: you)?"),
)
BARE_LETTER = re.compile(
    rf"(?i)\A[\W_]{{0,6}}({LETTER})(?![+#&%])(?={BECAUSE.pattern[4:]}|(?:[^\w?]|_|{SURE})*\Z)"
)
REASON_CJK = r"因为|由于|吧|了|なぜなら|ので|から|때문|번(?!\s?\w)"
CLOSING = r"\s{0,3}(?:_|[^\w\s&+#/°%^@='’?<-])|\s[-=#]|\s?[-=]>|\s*\n|\s*\Z|<"  # a mark, an end
FOLLOWING = rf"(?={CLOSING}|\s{REASON_WORDS}|\s?(?:{REASON_CJK}))"
ANSWER_LETTERS = re.compile(rf"(?i){GAP}(?P<letters>{LETTERS})(?:{JUDGED}|{FOLLOWING})")
ONE_LETTER = re.compile(rf"(?i){LETTER}")

REASON = re.compile(  # "the kitchen because …": where the text of an answer ends
    rf"(?i),?\s{REASON_WORDS}|[,，、]?\s?(?:{REASON_CJK})|[\"”}}*<\n]"
)
SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|[。！？\n]")

# ---- what takes an answer back -----------------------------------------------------------------

NEGATION = _words(
    *("not", "never", "cannot", "rather than", "instead of", "unlike", "neither", "nor", "except"),
    *("ruled? out", "ruling out", "eliminated?", "exclude[ds]?", "reject(?:ed)?", "no es", "ni"),
    *("no elijo", "pas", "nicht", "weder", "kein", "không phải", "không chọn", "none of"),
)
NEGATION_CJK = "不是|不选|并非|排除|既不是|也不是"
NEGATED_VERB = (
    r"(?: (?:be|to be|choose|pick|select|say|go with|options?|answer|the|la|l['’]option))*"
)
WRONG = (
    r"(?:all |both |clearly |also |definitely )?(?:wrong|incorrect|not\b|out\b|ruled out|eliminated"
    r"|false|impossible|excluded|unlikely|implausible)"
)
REFUTED_ONE = (
    rf" (?:is|was|seems|can be) {WRONG}",
    r" (?:isn|wasn|doesn|can|couldn)['’]t\b(?: be)?| cannot be",
    r" es (?:incorrect|fals|errón)\w*| no es\b",
    r" est (?:faux|fausse|incorrect)\w*| n['’]est pas\b",
    r" ist (?:falsch|nicht|inkorrekt)",
    r" (?:là )?sai\b| không (?:đúng|phải)",
    r"(?:不对|不正确|不是|错误?|有误)",
    r"\s?(?:번)?(?:은|는|이|가)? ?(?:아니|아닌|아닙|틀렸|틀린|틀리|오답)[가-힣]{0,3}",
    r"\s?(?:は|では|じゃ)(?:ない|なく|ありません|間違い?|違い?)|\s?は(?:誤り|不正解)",
)
REFUTED_MORE = (
    rf" (?:are|were|seem|can be) {WRONG}| (?:aren|weren|don|can)['’]t\b(?: be)?| cannot be",
    r" son (?:incorrect|fals|errón)\w*| no son\b| sont (?:faux|fausses|incorrect)\w*",
    r" ne sont pas\b| sind (?:falsch|nicht|inkorrekt)| (?:đều )?(?:sai\b|không (?:đúng|phải))",
    r"(?:都|均)(?:不对|不正确|不是|错误?|有误)|(?:은|는) (?:모두 )?(?:아니|아닙|틀렸|틀리)[가-힣]{0,3}",
)
LISTED = rf"{LETTER}(?:(?:, ?|/|、| & |,? ?(?:{JOINING}|{JOINING_CJK}) ?){LETTER}(?! {BEING}{RIGHT_ONE}\b)){{0,7}}"
CONTRAST = re.compile(  # "not A", "neither A nor B", "A is wrong", "A and C are wrong"
    rf"(?i)(?:{NEGATION}|n['’]t\b){NEGATED_VERB}[\W_]{{1,4}}{LISTED}"
    rf"|(?:{NEGATION_CJK})[\W_]{{0,3}}{LISTED}"
    rf"|{LETTER}[).:\]*]{{0,3}}(?:{'|'.join(REFUTED_ONE)})"
    rf"|{LISTED}[).:\]*]{{0,3}}(?:{'|'.join(REFUTED_MORE)})"
)
CONDITIONAL = _words(
    *(r"if(?! (?:i|we) (?:had|have|must))", "whether", "unless", "suppose", "assuming"),
    *("wenn", "falls", "ob", "si", "nếu"),
)
# before a statement, in its sentence: "if it is the kitchen, …"
CONDITION = re.compile(rf"(?i){CONDITIONAL}|如果|假如|要是|是否|만약|もし")
DOUBTING = _words(
    "not", "never", "hardly", "doubt", "unsure", "why", "wrong", "might", "may", "could"
)
CONNECTIVE = r"(?:so|thus|hence|therefore|but|then|and|because|since)"
DENIAL = re.compile(  # "I am not sure that", just before a statement
    rf"(?i)(?:{DOUBTING}|n['’]t\b)"
    rf"(?:(?!\b{CONNECTIVE}\b)[^,;.:\n]){{0,30}}\Z"
)
UNSTATED = re.compile(  # "the answer is not given", "… is in the video": no answer follows
    r"(?i)(?:not|in|that|un\w+|nicht|pas|no|不|未|không)\b"
)
