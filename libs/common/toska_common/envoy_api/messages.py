"""Classes of protobuf messages by name, made from descriptors that lie beside this module.

Reading the descriptors takes 20 ms and 2 MB, each class some microseconds: all of it happens at the first use.
"""

import importlib
import lzma
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

TYPE_URL_PREFIX = "type.googleapis.com/"
_DESCRIPTORS = Path(__file__).with_name("descriptors.binpb.xz")
_OF_PROTOBUF = ("any", "descriptor", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")


@cache
def message_class(full_name: str) -> Any:
    """The class of a message, nested ones (`envoy.config.route.v3.RouteAction.HashPolicy`) and protobuf's own included.

    Raises:
        LookupError: The API has no such message.
    """
    from google.protobuf.message_factory import GetMessageClass

    try:
        return GetMessageClass(pool().FindMessageTypeByName(full_name))
    except KeyError as error:
        raise LookupError(f"{full_name} is no message of Envoy's v3 API") from error


def type_url(message: Any) -> str:
    """What `Any` and the discovery protocol call the type of a message, or of a class of messages."""
    return f"{TYPE_URL_PREFIX}{message.DESCRIPTOR.full_name}"


@cache
def pool() -> "DescriptorPool":
    """The descriptors of all messages, for `google.protobuf.json_format` and other reflection."""
    from google.protobuf.descriptor_database import DescriptorDatabase
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    database: Any = DescriptorDatabase()  # without types
    for file in FileDescriptorSet.FromString(lzma.decompress(_DESCRIPTORS.read_bytes())).file:
        database.Add(file)
    for name in _OF_PROTOBUF:
        module: Any = importlib.import_module(f"google.protobuf.{name}_pb2")
        database.Add(FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb))
    return DescriptorPool(database)
