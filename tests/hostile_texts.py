"""Texts that try to be more than texts: in pages, scripts, attributes, addresses, terminals."""

from __future__ import annotations

__all__ = ["HOSTILE", "hostile_texts"]

TRAP = "nscore_trap()"


def hostile_texts(port):
    """The corpus; what could load something would load it from this port."""
    away = f"http://127.0.0.1:{port}/away"
    return [
        f"<script>{TRAP}</script>",
        f"</script><script>{TRAP}</script>",
        f"</SCRIPT\t><sCrIpT>{TRAP}//",
        f"<!--<script>{TRAP}",
        f"--><script>{TRAP}</script><!--",
        f"]]><script>{TRAP}</script>",
        f"</style><script>{TRAP}</script>",
        f"</title><script>{TRAP}</script>",
        f"</template><script>{TRAP}</script>",
        f"</textarea></noscript><script>{TRAP}</script>",
        f"<img src={away}.png onerror={TRAP}>",
        f"<svg onload={TRAP}><use href='{away}.svg#x'/></svg>",
        f"<svg><script>{TRAP}</script></svg>",
        f"<iframe src='javascript:{TRAP}'></iframe>",
        f"<iframe srcdoc='<script>parent.{TRAP}</script>'></iframe>",
        f"<link rel=stylesheet href={away}.css>",
        f"<meta http-equiv=refresh content='0;url={away}'>",
        f"<base href={away}/>",
        f"<form action={away}><button autofocus onfocus={TRAP}>",
        f"<style>@import url({away}.css);*{{background:url({away})}}</style>",
        f"<object data={away}></object><embed src={away}>",
        f"<video><source onerror={TRAP}></video>",
        f"<details open ontoggle={TRAP}>",
        f'"><script>{TRAP}</script>',
        f"' onmouseover='{TRAP}' autofocus onfocus='{TRAP}",
        f'" style="background:url({away})" x="',
        f"javascript:{TRAP}",
        f"data:text/html,<script>{TRAP}</script>",
        f"${{{TRAP}}}",
        f"`;{TRAP};`",
        f"';{TRAP};//",
        f'";{TRAP};//',
        f"\\u003cscript\\u003e{TRAP}\\u003c/script\\u003e",
        f"&lt;script&gt;{TRAP}&lt;/script&gt;",
        f"&#60;script&#62;{TRAP}",
        f"\u2028{TRAP}\u2029{TRAP}",
        f"\x00<script>{TRAP}</script>",
        f"<scr\x00ipt>{TRAP}</scr\x00ipt>",
        f"<\x0bscript>{TRAP}",
        "\u202egnirts a\u202c\u2066hidden\u2069\u200b\ufeff",
        "\x1b[31mred\x1b]0;title\x07\x1b]8;;http://127.0.0.1/\x07link\x1b[2J\x9b31m",
        "\r\n\t\x08\x7f\x85",
        "__proto__",
        "constructor",
        "toString",
        "NaN",
        "",
        " ",
        "a" * 30_000,
        "<b>" * 5_000,
        "é" + "\u0301" * 2_000,
        "👩‍👩‍👧‍👦 漢字 العربية עברית",
        "\U000e0041\U0010ffff\ufffe",
        "{{constructor.constructor('nscore_trap()')()}}",
        "%3Cscript%3E",
        "../../../etc/passwd",
        "0/7",
    ]


HOSTILE = hostile_texts(9)
