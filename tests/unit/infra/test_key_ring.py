import base64
import stat

import pytest

from infra.key_ring import KeyRing, add_key, file_of, remove_key
from schemas.errors import ConfigError

A = base64.b64encode(b"a" * 32).decode()
B = base64.b64encode(b"b" * 32).decode()


def test_the_newest_key_is_used_and_the_others_are_found():
    ring = KeyRing.of_text(f"first:{A}, second:{B}")
    assert (ring.current.key_id, ring.current.secret) == ("second", b"b" * 32)
    assert ring.find("first").secret == b"a" * 32
    assert ring.find("third") is None
    assert "aaaa" not in repr(ring.find("first"))


@pytest.mark.parametrize("text", ["", "x", f":{A}", f"x:{A[:-8]}", f"x:{A},", "x:????", f"x:{A};y:{B}"])
def test_what_is_no_key_is_refused_and_not_repeated(text):
    with pytest.raises(ConfigError, match="is not NAME:BASE64") as refused:
        KeyRing.of_text(text)
    assert A[:8] not in str(refused.value)


def test_keys_are_added_and_removed(tmp_path):
    first = add_key(tmp_path, "data")
    second = add_key(tmp_path, "data")
    assert KeyRing.of_file(tmp_path, "data").names == [first, second]
    assert stat.S_IMODE(file_of(tmp_path, "data").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="in use"):
        remove_key(tmp_path, "data", second)
    with pytest.raises(ConfigError, match="no data key"):
        remove_key(tmp_path, "data", "other")
    remove_key(tmp_path, "data", first)
    assert KeyRing.of_file(tmp_path, "data").names == [second]


def test_without_keys_it_says_what_to_run(tmp_path):
    with pytest.raises(ConfigError, match="tidegate keys rotate --for audit"):
        KeyRing.of_file(tmp_path, "audit")
