import os

from harness.bench_start import _empty_kernel_cache


def test_kernel_cache_is_empty_meanwhile_and_as_before_afterwards(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    with _empty_kernel_cache(tmp_path / "first"):
        assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "first")
        assert not list((tmp_path / "first").iterdir())
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    with _empty_kernel_cache(tmp_path / "second"):
        pass
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"
