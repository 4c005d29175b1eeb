"""Files as `torch.save` writes them, without PyTorch."""

import pickle
import struct
import zipfile

TORCH_STORAGES = {"<f8": "Double", "<f4": "Float", "<f2": "Half", "bfloat16": "BFloat16", "<i8": "Long"}


class TorchFile:
    """Files as `torch.save` writes them, assembled from opcodes of pickle protocol 2, so that PyTorch is not needed.

    `dict_of` and `tensor` give pieces of a pickle; `zipped` and `legacy` make a file of one.
    """

    def __init__(self):
        self.storages = {}

    def text(self, text):
        return b"X" + struct.pack("<I", len(text.encode())) + text.encode()

    def integer(self, number):
        return b"\x8a\x08" + struct.pack("<q", number)

    def integers(self, numbers):
        return b"(" + b"".join(map(self.integer, numbers)) + b"t"

    def dict_of(self, pieces):
        items = b"".join(self.text(name) + piece for name, piece in pieces.items())
        return b"ccollections\nOrderedDict\n)R(" + items + b"u"

    def tensor(self, array):
        """A C-contiguous array as a tensor with a storage of its own."""
        strides = [stride // array.itemsize for stride in array.strides]
        return self.view(array.dtype.str, array.tobytes(), array.size, 0, array.shape, strides)

    def view(self, dtype, content, count, offset, shape, strides):
        key = str(len(self.storages))
        self.storages[key] = (count, content)
        kind = f"ctorch\n{TORCH_STORAGES[dtype]}Storage\n".encode()
        storage = b"(" + self.text("storage") + kind + self.text(key) + self.text("cpu") + self.integer(count) + b"tQ"
        place = self.integer(offset) + self.integers(shape) + self.integers(strides)
        hooks = b"\x89ccollections\nOrderedDict\n)R"
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + hooks + b"tR"

    def zipped(self, path, piece):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + piece + b".")
            archive.writestr("archive/byteorder", "little")
            for key, (_, content) in self.storages.items():
                archive.writestr(f"archive/data/{key}", content)
            archive.writestr("archive/version", "3\n")
        return path

    def legacy(self, path, piece):
        head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
        parts = [pickle.dumps(value, 2) for value in head]
        # Here an entry for the view of a storage follows its length.
        parts += [b"\x80\x02" + piece.replace(b"tQ", b"NtQ") + b".", pickle.dumps(list(self.storages), 2)]
        parts += [struct.pack("<q", count) + content for count, content in self.storages.values()]
        path.write_bytes(b"".join(parts))
        return path
