"""The languages of speech: their ISO-639-1 codes and English names, those that Whisper's models know."""

from collections.abc import Mapping

_TABLE = (
    "en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese pt:portuguese "
    "tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian id:indonesian hi:hindi fi:finnish "
    "vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech ro:romanian da:danish hu:hungarian ta:tamil "
    "no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh "
    "sk:slovak te:telugu fa:persian lv:latvian bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada "
    "et:estonian mk:macedonian br:breton eu:basque is:icelandic hy:armenian ne:nepali mn:mongolian bs:bosnian "
    "kk:kazakh sq:albanian sw:swahili gl:galician mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba "
    "so:somali af:afrikaans oc:occitan ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic "
    "yi:yiddish lo:lao uz:uzbek fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk mt:maltese "
    "sa:sanskrit lb:luxembourgish my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese tt:tatar haw:hawaiian "
    "ln:lingala ha:hausa ba:bashkir jw:javanese su:sundanese yue:cantonese"
)

LANGUAGES: Mapping[str, str] = {
    code: name.replace("_", " ") for code, name in (entry.split(":") for entry in _TABLE.split())
}
"""English names by code. `haw` and `yue` have no ISO-639-1 code; `jw` is Whisper's code of Javanese."""

_OTHER_NAMES = {
    **{"burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps"},
    **{"panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si", "castilian": "es", "mandarin": "zh"},
    **{"farsi": "fa", "filipino": "tl", "jv": "jw", "iw": "he", "nb": "no", "fil": "tl", "cmn": "zh"},
}
_CODES = {**{name: code for code, name in LANGUAGES.items()}, **_OTHER_NAMES}


def language_code(text: str) -> str | None:
    """Return the code of a language: of a code, a code with a region (`en-US`) or an English name; None: unknown."""
    name = text.strip().lower()
    if name in LANGUAGES:
        return name
    if name in _CODES:
        return _CODES[name]
    code = name.replace("_", "-").partition("-")[0]
    return code if code in LANGUAGES else _CODES.get(code) if code != name and len(code) < 4 else None


def language_name(code: str) -> str:
    """Return the English name of a language in lower case, or the code itself if it is unknown."""
    return LANGUAGES.get(code, code)
