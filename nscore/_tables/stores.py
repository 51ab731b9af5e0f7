"""Object stores: what lies at `s3://`, `gs://` and `az://` addresses, and how an object appears there whole or not at all.

Polars reads tables there, pyarrow does the rest. Both take endpoints, regions and keys from the environment
(`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and `AWS_ALLOW_HTTP=true` for an endpoint
without TLS; `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_ENDPOINT`;
`GOOGLE_APPLICATION_CREDENTIALS`, or `STORAGE_EMULATOR_HOST` for a server that asks for none), and from nowhere else: an
address holds neither.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.fs  # type: ignore[import-untyped]

from nscore._sending.retry import redact
from nscore.errors import SettingError, StorageError, TableError

__all__ = ["Place", "StorePath", "emulator", "is_address", "is_in_store", "place", "said_of", "shown", "unreachable"]

T = TypeVar("T")
SCHEMES = ("s3", "gs", "az")
# Google's own is a quarter of an hour, which looks like a hang to who has no keys.
RETRIES = timedelta(seconds=30)
FAULTS = (OSError, ValueError, pa.ArrowException)
# Of uploads that go on, and of those that failed: one that is forgotten tries to complete its upload, and may succeed then.
_STREAMS: list[Any] = []
_FILE, _FOLDER = pyarrow.fs.FileType.File, pyarrow.fs.FileType.Directory


class StorePath:
    """A place in an object store, with those operations of `Path` that tables need; it is shown as its address.

    >>> folder = StorePath("s3://bucket/results/")
    >>> str(folder / "scores.parquet"), folder.name, str(folder.parent)
    ('s3://bucket/results/scores.parquet', 'results', 's3://bucket')
    """

    __slots__ = ("_address",)

    def __init__(self, address: str) -> None:
        """Takes an address.

        Raises:
            SettingError: if it is of no store, has no bucket, or holds keys or options.
        """
        scheme, _, rest = address.partition("://")
        if scheme not in SCHEMES:
            what = f"expected a path, or an address with {', '.join(f'{each}://' for each in SCHEMES)}"
            raise SettingError(f"{shown(address)}: {what}")
        if "@" in rest.split("/", maxsplit=1)[0] or re.search(r"\?\w+=", rest):
            mend = "set them in the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, AWS_REGION, ...)"
            raise SettingError(f"{shown(address)}: an address of a table holds no keys and no options: {mend}")
        if not rest.strip("/"):
            raise SettingError(f"{address}: expected the name of a bucket")
        self._address = address.rstrip("/")

    def __str__(self) -> str:
        return self._address

    def __repr__(self) -> str:
        return f"StorePath({self._address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StorePath) and other._address == self._address

    def __hash__(self) -> int:
        return hash(self._address)

    def __truediv__(self, name: str) -> StorePath:
        return StorePath(f"{self._address}/{name}")

    @property
    def _key(self) -> str:
        """The bucket and what follows it."""
        return self._address.partition("://")[2]

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self._key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return os.path.splitext(self.name)[1]  # noqa: PTH122  (no path of this machine)

    @property
    def parent(self) -> StorePath:
        """The folder that it lies in; of a bucket itself."""
        return StorePath(self._address.rpartition("/")[0]) if "/" in self._key else self

    def absolute(self) -> StorePath:
        """An address is absolute."""
        return self

    def is_file(self) -> bool:
        """Whether an object is there."""
        return bool(self._info().type == _FILE)

    def is_dir(self) -> bool:
        """Whether objects lie under it, as in a folder."""
        return bool(self._info().type == _FOLDER)

    def exists(self) -> bool:
        """Whether either is there."""
        return self._info().type in {_FILE, _FOLDER}

    def size(self) -> int:
        """The bytes of the object."""
        return int(self._info().size or 0)

    def iterdir(self) -> Iterator[StorePath]:
        """What lies in the folder."""
        for info in self._listed(recursive=False):
            yield StorePath(f"{self._scheme}://{info.path}")

    def glob(self, pattern: str) -> list[StorePath]:
        """The objects under it that a pattern names, sorted; `**` stands for any folders."""
        deep = "/" in pattern or "**" in pattern
        head, wanted = self._key + "/", pattern.split("/")
        infos = [info for info in self._listed(recursive=deep) if info.type == _FILE]
        paths = [info.path for info in infos if _fits(info.path.removeprefix(head).split("/"), wanted)]
        return [StorePath(f"{self._scheme}://{path}") for path in sorted(paths)]

    def read_bytes(self) -> bytes:
        """The object.

        Raises:
            FileNotFoundError: if none is there.
            OSError: if it cannot be read.
        """
        try:
            store, key = self.opened()
            with store.open_input_file(key) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            raise FileNotFoundError(str(self)) from None
        except FAULTS as error:
            raise OSError(said_of(error)) from None

    def upload(self, file: Path) -> None:
        """Copies a whole file of this machine there; the object appears when its last byte has arrived, over another.

        Raises:
            StorageError: if the store does not take it. What was there before is then there still.
            SettingError: if the environment does not say what a store needs, or a package is not installed.
        """
        try:
            # away from the thread that Ctrl-C ends: a stream that is left half written is closed, and half an object there
            with ThreadPoolExecutor(1) as crew:
                crew.submit(self._send, file).result()
        except SettingError:
            raise
        except FAULTS as error:
            mend = "See whether the bucket is there, and the keys and the endpoint in the environment are right."
            raise StorageError(f"{self}: cannot write it: {said_of(error)}. {mend}") from None

    def _send(self, file: Path) -> None:
        if self._scheme == "az":
            _sent_to_azure(self._key, file)
            return
        # not pyarrow.fs.copy_files: it does not tell that an upload could not be completed
        store, key = self.opened()
        with pa.memory_map(str(file)) as content:
            buffer = content.read_buffer()
            stream = store.open_output_stream(key)
            _STREAMS.append(stream)
            stream.write(buffer)
            stream.close()
            _STREAMS.remove(stream)

    def remove(self) -> None:
        """Removes the object."""
        store, key = self.opened()
        store.delete_file(key)

    def opened(self) -> tuple[Any, str]:
        """The store, as pyarrow has it, and the name of the object there.

        Raises:
            SettingError: if the environment does not say what a store needs.
        """
        environment = ((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_", "STORAGE_")))
        return _opened(self._scheme, self._key.split("/", maxsplit=1)[0], tuple(sorted(environment))), self._key

    @property
    def _scheme(self) -> str:
        return self._address.partition("://")[0]

    def _info(self) -> Any:  # noqa: ANN401  (pyarrow has no types)
        return self._asked(lambda store, key: store.get_file_info(key))

    def _listed(self, *, recursive: bool) -> list[Any]:
        def ask(store: Any, key: str) -> list[Any]:  # noqa: ANN401  (pyarrow has no types)
            return list(store.get_file_info(pyarrow.fs.FileSelector(key, recursive=recursive, allow_not_found=True)))

        return self._asked(ask)

    def _asked(self, ask: Callable[[Any, str], T]) -> T:
        try:
            return ask(*self.opened())
        except SettingError:
            raise
        except FAULTS as error:
            raise unreachable(str(self), error) from None


Place: TypeAlias = Path | StorePath


def is_address(path: object) -> bool:
    """Whether a path is an address: of a store, or of anything else that is not on this machine."""
    return "://" in str(path)


def is_in_store(path: object) -> bool:
    """Whether a path is an address in a store that is listed and written to."""
    return str(path).startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def emulator() -> str | None:
    """The server that stands in for Google's, which knows no keys; None if none does.

    Google's libraries read the same variable, some of them with `http://` and some without.
    """
    host = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if not host:
        return None
    return host if "://" in host else f"http://{host}"


def place(path: str | Place) -> Place:
    """A path of this machine, or a place in a store, of what a user wrote.

    Raises:
        SettingError: if it is an address of neither.
    """
    if isinstance(path, StorePath):
        return path
    text = str(path).removeprefix("file://")
    if isinstance(path, Path) and text.startswith(tuple(f"{scheme}:/" for scheme in SCHEMES)):
        raise SettingError(f"{text}: a Path takes one of the slashes from an address: give it as text")
    return StorePath(text) if is_address(text) else Path(text)


def shown(address: str) -> str:
    """An address as an error may show it: without a user, a password, and the signature behind the `?`.

    >>> shown("https://me:pass@host/a.parquet?X-Amz-Signature=1f3a"), shown("folder/part-?.parquet")
    ('https://***@host/a.parquet', 'folder/part-?.parquet')
    """
    return _without_options(redact(address, _secrets())) if is_address(address) else address


def said_of(error: BaseException) -> str:
    """What a store said, in a line and without keys."""
    # before lines are cut: an answer in XML may hold the key in any of them
    text = _without_options(redact(str(error), _secrets()))
    # behind it Google's library says the same again
    return text.split("\n", maxsplit=1)[0].split(" error_info=", maxsplit=1)[0].rstrip(". :")


def unreachable(address: str, error: BaseException) -> TableError:
    """What to raise where a store, or a server, does not give what lies at an address."""
    text = str(error)
    words = [
        (r"not.?found|NoSuch|\b404\b|does not exist", "no such file", "Check the address."),
        (
            r"scheme is not allowed",
            "unreadable",
            "For an endpoint without TLS, set AWS_ALLOW_HTTP=true (AZURE_ALLOW_HTTP=true).",
        ),
        (
            r"OAuth2 access token",
            "no permission",
            "Set GOOGLE_APPLICATION_CREDENTIALS to the file of a key that may read it.",
        ),
        (
            r"ACCESS_DENIED|PERMISSION_DENIED|UNAUTHENTICATED|AccessDenied|Forbidden|Unauthorized|\b40[13]\b|InvalidAccessKey|SignatureDoesNotMatch|credential",
            "no permission",
            "See whether the keys in the environment are right and may read it.",
        ),
    ]
    found = ((problem, mend) for pattern, problem, mend in words if re.search(pattern, text, re.IGNORECASE))
    problem, mend = next(found, ("unreadable", "See whether the address and the endpoint are right."))
    return TableError(problem, shown(address), found=said_of(error), mend=mend)


def _without_options(text: str) -> str:
    return re.sub(r"(\?|%3F)[\w.-]+(=|%3D)[^\s\"')]*", "", text)


def _secrets() -> list[str]:
    names = re.compile(r"(AWS|AZURE|GOOGLE)_.*(KEY|TOKEN|SECRET|SAS|PASSWORD|CONNECTION)", re.IGNORECASE)
    return [value for name, value in os.environ.items() if names.match(name)]


@lru_cache(16)
def _opened(scheme: str, bucket: str, environment: tuple[tuple[str, str], ...]) -> Any:  # noqa: ANN401  (no types)
    if scheme == "gs":
        server = urlsplit(emulator() or "")
        stands_in = {"anonymous": True, "endpoint_override": server.netloc, "scheme": server.scheme}
        return pyarrow.fs.GcsFileSystem(retry_time_limit=RETRIES, **(stands_in if server.netloc else {}))
    if scheme != "az":
        return pyarrow.fs.FileSystem.from_uri(f"{scheme}://{bucket}")[0]
    there = dict(environment)
    azure = getattr(pyarrow.fs, "AzureFileSystem", None)
    account = there.get("AZURE_STORAGE_ACCOUNT_NAME")
    if azure is None or not account:
        what = "set AZURE_STORAGE_ACCOUNT_NAME" if azure else "this pyarrow knows no Azure: update it"
        raise SettingError(f"az://{bucket}: {what}")
    endpoint = urlsplit(there.get("AZURE_STORAGE_ENDPOINT", ""))
    # pyarrow sets the account before what begins with a dot, behind anything else
    host = endpoint.netloc.removeprefix(account) if endpoint.netloc.startswith(f"{account}.") else endpoint.netloc
    options = {"blob_storage_authority": host, "dfs_storage_authority": host.replace(".blob.", ".dfs.", 1)}
    options |= {"blob_storage_scheme": endpoint.scheme, "dfs_storage_scheme": endpoint.scheme}
    return azure(
        account_name=account,
        account_key=there.get("AZURE_STORAGE_ACCOUNT_KEY"),
        **(options if endpoint.netloc else {}),
    )


def _sent_to_azure(key: str, file: Path) -> None:
    """By another way than pyarrow's, whose stream empties the object that was there before it writes."""
    try:
        import obstore  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        raise SettingError(f"az://{key}: to write there takes obstore: pip install 'nscore[azure]'") from None
    container, _, name = key.partition("/")
    obstore.put(obstore.store.from_url(f"az://{container}"), name, file)


def _fits(parts: list[str], patterns: list[str]) -> bool:
    """Whether the parts of a path fit those of a pattern, as they do on a disk: `*` is no `/`, and finds nothing hidden."""
    if not parts or not patterns:
        return not parts and not patterns
    hidden = parts[0].startswith(".") and not patterns[0].startswith(".")
    if patterns[0] == "**":
        return _fits(parts, patterns[1:]) or (not hidden and _fits(parts[1:], patterns))
    return not hidden and fnmatchcase(parts[0], patterns[0]) and _fits(parts[1:], patterns[1:])
