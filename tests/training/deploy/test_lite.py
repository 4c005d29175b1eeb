from models.store import open_bundle
from training.deploy import lite


def test_an_ascend_gets_profiles_of_several_batch_sizes():
    assert lite.ascend_options("image", 224, "Ascend310", [1, 4, 8]) == {
        "optimize": "ascend_oriented",
        "input_shape": {},
        "config": {
            "ascend_context": {
                "input_format": "NCHW",
                "precision_mode": "enforce_fp16",
                "input_shape": "image:[-1,3,224,224]",
                "dynamic_dims": "[1],[4],[8]",
            },
            "acl_init_options": {"ge.socVersion": "Ascend310"},
        },
    }


def test_an_ascend_gets_one_batch_size_as_the_shape_of_the_input():
    options = lite.ascend_options("image", 32, "Ascend310P3", [16])
    assert options["input_shape"] == {"image": [16, 3, 32, 32]}
    assert "dynamic_dims" not in options["config"]["ascend_context"]


def test_half_precision_gets_its_own_tolerance(tiny_bundle):
    bundle = open_bundle(tiny_bundle)
    assert lite.tolerance(bundle, "fp16") == {"fp16": lite.FP16_TOLERANCE}
    assert lite.tolerance(bundle, "fp32") == {}
