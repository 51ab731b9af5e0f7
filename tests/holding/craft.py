"""Makes Parquet that no writer makes: a codec of its footers (Thrift's compact protocol), and files that are crafted."""

from __future__ import annotations

import struct

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from tables import explanations, records, simulated

import nscore as ns

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
BOMB_ROWS = 1_000_000


def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])


def zigzag(n):
    return varint((n << 1) ^ (n >> 63) if n < 0 else n << 1)


class Reader:
    """Thrift's compact protocol: a struct is `{field: (type, value)}`, a list `(type of its elements, [...])`."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def varint(self):
        n = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    def value(self, kind):
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind in (I16, I32, I64):
            n = self.varint()
            return (n >> 1) ^ -(n & 1)
        if kind == STRUCT:
            return self.struct()
        size = {BYTE: 1, DOUBLE: 8}.get(kind)
        if kind == LIST:
            head = self.data[self.at]
            self.at += 1
            n = self.varint() if head >> 4 == 15 else head >> 4
            return head & 15, [self.value(head & 15) for _ in range(n)]
        size = self.varint() if size is None else size
        self.at += size
        return self.data[self.at - size : self.at]

    def struct(self):
        fields, last = {}, 0
        while head := self.data[self.at]:
            self.at += 1
            last = last + (head >> 4) if head >> 4 else self.value(I16)
            fields[last] = (head & 15, self.value(head & 15))
        self.at += 1
        return fields


def encoded(kind, value):
    """The bytes of a value; bytes in place of a list stand for themselves."""
    if kind in (I16, I32, I64):
        return zigzag(value)
    if kind == BINARY:
        return varint(len(value)) + value
    if kind == LIST and not isinstance(value, bytes):
        inner, items = value
        head = bytes([len(items) << 4 | inner]) if len(items) < 15 else bytes([0xF0 | inner]) + varint(len(items))
        return head + b"".join(encoded(inner, item) for item in items)
    if kind != STRUCT or isinstance(value, bytes):
        return value
    out, last = b"", 0
    for field, (inner, item) in sorted(value.items()):
        kind_now = (TRUE if item else FALSE) if inner in (TRUE, FALSE) else inner
        near = 0 < field - last < 16
        out += bytes([(field - last) << 4 | kind_now]) if near else bytes([kind_now]) + zigzag(field)
        out += b"" if inner in (TRUE, FALSE) else encoded(inner, item)
        last = field
    return out + b"\0"


def footer_of(whole):
    """The footer of a Parquet file."""
    (size,) = struct.unpack("<I", whole[-8:-4])
    return Reader(whole[-8 - size : -8]).struct()


def with_footer(whole, footer):
    """The file with another footer: a struct, or bytes."""
    (size,) = struct.unpack("<I", whole[-8:-4])
    new = footer if isinstance(footer, bytes) else encoded(STRUCT, footer)
    return whole[: -8 - size] + new + struct.pack("<I", len(new)) + b"PAR1"


def small_tables():
    """A small table of each kind."""
    table = simulated(predicted=[None, 9.0, 4.0] + [2.0, 8.0, 0.0] * 3)
    told = explanations(shown_sequences=[[1], [1]])
    return {
        "records": records(split=["calibration"] * 3 + ["test"] * 3),
        "explanations": told,
        "simulated": table,
        "sequence_scores": ns.score_sequences(table),
        "scores": ns.score(table),
    }


def written(frame, folder, name, *, codec="zstd", arrow=False, **options):
    """The bytes of a frame as Parquet, by Polars or by Arrow."""
    file = folder / f"{name}.parquet"
    if arrow:
        pq.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), file, compression=codec, **options)
    else:
        frame.write_parquet(file, compression=codec, **options)
    return file.read_bytes()


def bomb(columns, copies):
    """A file whose footer lists one group of 10^6 rows so many times; the texts, numbers of a row are given."""
    table = pa.table({name: pa.array([value] * BOMB_ROWS) for name, value in columns.items()})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=BOMB_ROWS)
    whole = sink.getvalue().to_pybytes()
    footer = footer_of(whole)
    kind, (inner, groups) = footer[4]
    group = encoded(inner, groups[0])
    listed = bytes([0xF0 | inner]) + varint(copies) + group * copies
    footer[4] = (kind, listed)
    footer[3] = (I64, BOMB_ROWS * copies)
    return with_footer(whole, footer)


def page_bomb(whole, column, size, content):
    """The file with one page of so many bytes, packed by zstd, in place of a column's."""
    footer = footer_of(whole)
    group = footer[4][1][1][0]
    meta = group[1][1][1][column][3][1]
    rows = group[3][1]
    data = {1: (I32, rows), 2: (I32, 0), 3: (I32, 3), 4: (I32, 3)}
    page = {1: (I32, 0), 2: (I32, size), 3: (I32, len(content)), 5: (STRUCT, data)}
    head = encoded(STRUCT, page)
    at = len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0]
    body = whole[:at] + head + content
    meta[4] = (I32, 6)
    meta[7] = (I64, len(head) + len(content))
    meta[9] = (I64, at)
    meta.pop(11, None)
    new = encoded(STRUCT, footer)
    return body + new + struct.pack("<I", len(new)) + b"PAR1"


def changed(whole, change):
    """The file with its footer changed in place."""
    footer = footer_of(whole)
    change(footer)
    return with_footer(whole, footer)


def group_changed(whole, change):
    """The file with its first row group changed."""
    return changed(whole, lambda footer: change(footer[4][1][1][0]))


def chunks_changed(whole, change):
    """The file with what each column of its first row group says of itself changed."""
    return group_changed(whole, lambda group: [change(chunk[3][1]) for chunk in group[1][1][1]])


def columns_changed(whole, change):
    """The file with each column of its schema changed."""
    return changed(whole, lambda footer: [change(element) for element in footer[2][1][1][1:]])


def crafted(whole):
    """Files made of a whole one of a few columns, by the name of what is wrong with them."""
    return others(whole) | footers(whole) | rows(whole) | chunks(whole) | schemas(whole) | deep(whole)


def others(whole):
    """What is no Parquet."""
    return {
        "an empty file": b"",
        "a text": b"layer,neuron,sequence\n0,7,1\n" * 9,
        "magic alone": b"PAR1",
        "magic twice": b"PAR1PAR1",
        "magic and a length": b"PAR1" + bytes(4) + b"PAR1",
        "an encrypted footer": b"PARE" + whole[4:-4] + b"PARE",
        "an Arrow file": arrow_file(),
    }


def footers(whole):
    """Footers that are none."""
    (size,) = struct.unpack("<I", whole[-8:-4])
    files = {
        "footer of 2 GB": whole[:-8] + struct.pack("<I", 2**31 - 1) + b"PAR1",
        "footer of 4 GB": whole[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1",
        "footer cut in half": whole[:-8] + struct.pack("<I", size // 2) + b"PAR1",
        "footer of zeros": with_footer(whole, bytes(size)),
        "footer of ones": with_footer(whole, b"\xff" * size),
        "keys and values of ones": changed(whole, lambda f: f.update({5: (LIST, b"\xff" * 40)})),
    }
    for field in range(1, 9):
        files[f"footer without field {field}"] = changed(whole, without(field))
    arrow = {1: (BINARY, b"ARROW:schema"), 2: (BINARY, b"////" * 90)}
    files["an Arrow schema that is none"] = changed(whole, lambda f: f.update({5: (LIST, (STRUCT, [arrow]))}))
    return files


def without(field):
    """A change that leaves out a field."""
    return lambda fields: fields.pop(field, None)


def said(**fields):
    """A change that says other numbers: `said(n3=5)` puts 5 into field 3."""
    return lambda struct_: struct_.update({int(name[1:]): (I64, value) for name, value in fields.items()})


def rows(whole):
    """Numbers of rows that cannot be."""
    files = {
        "rows without groups": changed(whole, lambda f: f.update({4: (LIST, (STRUCT, []))})),
        "one row more": changed(whole, lambda f: f.update({3: (I64, f[3][1] + 1)})),
        "a group without columns": group_changed(whole, lambda g: g.update({1: (LIST, (STRUCT, []))})),
        "a group of fewer columns": group_changed(whole, lambda g: g[1][1][1].pop()),
    }
    for n in (-5, 2**40, 2**62):
        files[f"{n} rows"] = changed(whole, said(n3=n))
        files[f"{n} rows in a group"] = group_changed(whole, said(n3=n))
        files[f"{n} rows in a file and its group"] = group_changed(files[f"{n} rows"], said(n3=n))
        files[f"{n} rows in a column too"] = chunks_changed(files[f"{n} rows in a file and its group"], said(n5=n))
    return files


def chunks(whole):
    """Columns that say what cannot be of their pages."""
    size = len(whole)
    changes = {
        "pages beyond the end": said(n9=2**40),
        "pages at the last byte": said(n9=size - 1, n11=size - 1),
        "pages before the start": said(n9=-4),
        "pages at 2^63 - 1": said(n9=2**63 - 1, n11=2**63 - 1),
        "negative sizes": said(n6=-1, n7=-1),
        "sizes of 2^62": said(n6=2**62, n7=2**62),
        "a size of 3 GB": said(n6=3 << 30),
        "no pages": said(n7=0),
        "2^62 values": said(n5=2**62),
        "2^36 values": said(n5=2**36),
        "negative values": said(n5=-1),
        "an unknown encoding": lambda m: m.update({2: (LIST, (I32, [99]))}),
        "an unknown type": lambda m: m.update({1: (I32, 42)}),
    }
    files = {name: chunks_changed(whole, change) for name, change in changes.items()}
    for codec in (*range(8), 77):
        files[f"codec {codec} said"] = chunks_changed(whole, lambda m, codec=codec: m.update({4: (I32, codec)}))
    files["nothing said of the columns"] = group_changed(whole, lambda g: [c.pop(3) for c in g[1][1][1]])
    elsewhere = {1: (BINARY, b"/etc/passwd")}
    files["pages in another file"] = group_changed(whole, lambda g: [c.update(elsewhere) for c in g[1][1][1]])
    return files


def schemas(whole):
    """Schemas that are none, or another table's."""
    leaf = {1: (I32, 1), 3: (I32, 0), 4: (BINARY, b"x")}
    wide = [{4: (BINARY, b"schema"), 5: (I32, 100_000)}, *({**leaf, 4: (BINARY, b"c%d" % i)} for i in range(100_000))]
    root = {4: (BINARY, b"schema"), 5: (I32, 0)}
    files = {
        name: changed(whole, lambda f, elements=elements: f.update({2: (LIST, (STRUCT, elements))}))
        for name, elements in {"an empty schema": [], "a root alone": [root], "100,000 columns": wide}.items()
    }
    for n in (-1, 1000, 2**31 - 1):
        files[f"{n} children"] = changed(whole, lambda f, n=n: f[2][1][1][0].update({5: (I32, n)}))
    changes = {
        "columns of one name": lambda e: e.update({4: (BINARY, b"layer")}),
        "names that are no UTF-8": lambda e: e.update({4: (BINARY, b"\xff\xfe" + e[4][1])}),
        "another physical type": lambda e: e.update({1: (I32, 2 if e.get(1, (0, 0))[1] != 2 else 5)}),
        "texts where numbers are": lambda e: e.update({1: (I32, 6)}),
        "required where optional": lambda e: e.update({3: (I32, 0)}),
        "repeated where optional": lambda e: e.update({3: (I32, 2)}),
    }
    return files | {name: columns_changed(whole, change) for name, change in changes.items()}


def deep(whole):
    """What a reader that calls itself, or believes a length, does not live through."""
    leaf = {1: (I32, 1), 3: (I32, 0), 4: (BINARY, b"x")}
    level = encoded(STRUCT, {3: (I32, 0), 4: (BINARY, b"x"), 5: (I32, 1)})
    files = {}
    for depth in (100, 1_000, 100_000, 1_000_000):
        schema = bytes([0xF0 | STRUCT]) + varint(depth + 1) + level * depth + encoded(STRUCT, leaf)
        fields = {2: (LIST, schema), 4: (LIST, (STRUCT, []))}
        files[f"a schema {depth:,} deep"] = changed(whole, lambda f, fields=fields: f.update(fields))
    million = 1_000_000
    structs, lists = b"\x1c" * million + b"\0" * (million + 1), b"\x19" * million + b"\x05"
    files["structs 1,000,000 deep in an unknown field"] = changed(whole, lambda f: f.update({99: (STRUCT, structs)}))
    files["lists 1,000,000 deep in an unknown field"] = changed(whole, lambda f: f.update({99: (LIST, lists)}))
    for n in (2**31 - 1, 2**32 - 1):
        for field in (2, 4, 5, 7):
            body = bytes([0xF0 | STRUCT]) + varint(n)
            change = {field: (LIST, body)}
            files[f"a list of {n} in field {field}"] = changed(whole, lambda f, change=change: f.update(change))
    return files | pages(whole)


def pages(whole):
    """Headers of the first page that say what cannot be."""
    at = 4
    reader = Reader(whole, at)
    header = reader.struct()
    length = reader.at - at
    kind = next(field for field in (5, 7, 8) if field in header)
    files = {}
    changes = {
        "a page of 2^31 - 1 bytes": {2: (I32, 2**31 - 1)},
        "a page of -1 bytes": {2: (I32, -1)},
        "a page packed in -1 bytes": {3: (I32, -1)},
        "a page packed in 2^31 - 1 bytes": {3: (I32, 2**31 - 1)},
        "a page of -3 values": {kind: (STRUCT, header[kind][1] | {1: (I32, -3)})},
        "a page of 2^31 - 1 values": {kind: (STRUCT, header[kind][1] | {1: (I32, 2**31 - 1)})},
        "structs 100,000 deep in a page": {99: (STRUCT, b"\x1c" * 100_000 + b"\0" * 100_001)},
        "a list of 2^31 - 1 in a page": {99: (LIST, b"\xf5" + varint(2**31 - 1))},
    }
    for name, change in changes.items():
        new = encoded(STRUCT, header | change)
        # what comes after it lies further on than the footer says: the first column is moved to the end
        body = whole[at + length : at + length + header[3][1]]
        moved = new + body + rest_of_column(whole, at + length + header[3][1])
        files[name] = with_column(whole, moved, len(new) - length)
    return files


def first_column(footer):
    """What the first column of the first row group says of itself."""
    return footer[4][1][1][0][1][1][1][0][3][1]


def rest_of_column(whole, start):
    """The pages of the first column after the first."""
    about = first_column(footer_of(whole))
    first = min(about[9][1], about.get(11, about[9])[1] or about[9][1])
    return whole[start : first + about[7][1]]


def with_column(whole, column, more):
    """The file with other pages of its first column, whose first header is so many bytes longer."""
    end = len(whole) - 8 - struct.unpack("<I", whole[-8:-4])[0]

    def change(footer):
        about = first_column(footer)
        has_dictionary = about.get(11, (I64, 0))[1] > 0
        first = about[11][1] if has_dictionary else about[9][1]
        about[9] = (I64, end + about[9][1] - first + (more if has_dictionary else 0))
        if has_dictionary:
            about[11] = (I64, end)
        about[7] = (I64, len(column))

    new = footer_of(whole)
    change(new)
    footer = encoded(STRUCT, new)
    return whole[:end] + column + footer + struct.pack("<I", len(footer)) + b"PAR1"


def arrow_file():
    """An Arrow file in place of Parquet."""
    sink = pa.BufferOutputStream()
    table = pa.table({"layer": [0], "neuron": [7]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
