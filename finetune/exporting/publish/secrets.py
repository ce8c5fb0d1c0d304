"""Finds access tokens, keys and passwords in files, before they are sent."""

import os
import re
from collections.abc import Mapping

SECRETS = {
    "an access token of Hugging Face": r"\bhf_[A-Za-z0-9]{30,}\b",
    "an API key (sk-...)": r"\bsk-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}",
    "an access key of AWS": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})",
    "a token of GitLab": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a token of Slack": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "an API key of Google": r"\bAIza[A-Za-z0-9_-]{35}",
    "an API key of Weights & Biases": r"\bwandb_v\d_[A-Za-z0-9_]{30,}",
    "a JSON Web Token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in a URL": r"\b[a-z][a-z0-9+.-]{0,15}://[^\s/:@\"']+:[^\s/@\"']{3,}@",
    "a password or key": r"(?i)(?:passw(?:or)?d|secret|api_?key|access_?token|auth_?token|private_?key)"
    r"\w{0,9}[\"']?\s*[:=]\s*[\"'][^\"'\s{}<>]{8,}[\"']",
    "an authorization header": r"(?i)\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}",
}
PATTERNS = {name: re.compile(pattern) for name, pattern in SECRETS.items()}
VARIABLE = re.compile(r"(?:TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY)(?:_ID)?$")
SHORTEST = 8  # characters of a value in the environment that counts as a secret


def secret_values() -> dict[str, str]:
    """The values of environment variables whose names say that they are secret, by a text that names the variable."""
    return {
        f"the value of the variable {name}": value
        for name, value in os.environ.items()
        if VARIABLE.search(name) and len(value) >= SHORTEST
    }


def secret_in(text: str, values: Mapping[str, str]) -> str:
    """What the first secret in a text is, and its line; "" if there is none. The secret itself is not repeated.

    Args:
        text: The content of a file.
        values: Values that must not occur, see `secret_values`.
    """
    for name, pattern in PATTERNS.items():
        if match := pattern.search(text):
            return f"{name} in line {text.count(chr(10), 0, match.start()) + 1}"
    for name, value in values.items():
        if (position := text.find(value)) >= 0:
            return f"{name} in line {text.count(chr(10), 0, position) + 1}"
    return ""
