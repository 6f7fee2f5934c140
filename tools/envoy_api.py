"""Make `toska_common/envoy_api/descriptors.binpb.xz` anew from the wheel `xds-protos`: `tools/envoy_api.py WHEEL`.

Get the wheel with `pip download --no-deps xds-protos==VERSION`. It is read and not installed; ADR 12 says why.
"""

import argparse
import ast
import lzma
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

OUT = Path(__file__).parents[1] / "libs/common/toska_common/envoy_api/descriptors.binpb.xz"
_ONLY_OPTIONS = ("envoy/annotations/", "google/api/annotations", "udpa/annotations/", "validate/", "xds/annotations/")
"""Files that only say what may stand in options, which are left out."""
_OF_PROTOBUF = "google/protobuf/"


def main() -> None:
    """Read the wheel, write the descriptors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    files = _read(arguments.wheel)
    roots = [name for name in files if name.startswith("envoy/") and "/v3/" in name]
    made = FileDescriptorSet(file=[_bare(files[name]) for name in sorted(_closure(roots, files))])
    packed = lzma.compress(made.SerializeToString(deterministic=True), preset=9 | lzma.PRESET_EXTREME)
    arguments.out.write_bytes(packed)
    print(f"{len(made.file)} files of {arguments.wheel.name} in {len(packed)} bytes")


def _read(wheel: Path) -> dict[str, FileDescriptorProto]:
    """The descriptors in the generated modules, which are not run for it."""
    found: dict[str, FileDescriptorProto] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if not name.endswith("_pb2.py"):
                continue
            for node in ast.walk(ast.parse(archive.read(name))):
                match node:
                    case ast.Call(func=ast.Attribute(attr="AddSerializedFile"), args=[ast.Constant(value=bytes(data))]):
                        file = FileDescriptorProto.FromString(data)
                        found[file.name] = file
                    case _:
                        pass
    return found


def _closure(roots: Iterable[str], files: Mapping[str, FileDescriptorProto]) -> set[str]:
    found: set[str] = set()
    left = list(roots)
    while left:
        name = left.pop()
        if name in found or name.startswith((*_ONLY_OPTIONS, _OF_PROTOBUF)):
            continue
        found.add(name)
        left += files[name].dependency
    return found


def _bare(file: FileDescriptorProto) -> FileDescriptorProto:
    """The file without the options that others define: validation rules, maturity, history."""
    file.DiscardUnknownFields()
    public = [file.dependency[index] for index in file.public_dependency]
    kept = [name for name in file.dependency if not name.startswith(_ONLY_OPTIONS)]
    del file.dependency[:], file.public_dependency[:]
    file.dependency.extend(kept)
    file.public_dependency.extend(kept.index(name) for name in public if name in kept)
    file.options.Clear()
    return file


if __name__ == "__main__":
    main()
