from dataclasses import replace

import pytest

from lgd.pipeline.console.errors import UsageError, UserError
from lgd.pipeline.dataset.dataset import STREAMS, StreamSpec
from lgd.preprocessing.flow.params import TVL1Params
from lgd.preprocessing.settings import FlowSettings, PreprocessResources, Settings, settings_from_specs


def test_the_entries_of_a_spec_keep_their_names_of_the_first_version():
    """They are hashed into the datasets that exist."""
    rgb, flow = (Settings(untagged_matrix="bt601").spec(stream).settings for stream in ("rgb", "flow"))
    assert rgb.keys() == {"fps", "short_side", "ffmpeg", "opencv", "jpeg_quality"}
    tvl1 = {
        "tau": 0.25,
        "lambda_": 0.15,
        "theta": 0.3,
        "scales": 5,
        "scale_step": 0.8,
        "warps": 5,
        "epsilon": 0.01,
        "inner_iterations": 30,
        "outer_iterations": 10,
        "median_filtering": 5,
    }
    chosen = {"backend": "numba", "solver": "1", "bound": 9.375, "jpeg_quality": 95, "order": "resize, grey, flow"}
    shared = {name: rgb[name] for name in ("fps", "short_side", "ffmpeg", "opencv")}
    assert flow == {**shared, **{f"tvl1.{name}": value for name, value in tvl1.items()}, **chosen}
    versions = {"ffmpeg": "7.0.2", "opencv": "4.10.0"}
    assert StreamSpec("rgb", {**rgb, **versions}).hash == "2df4ea69ceee952f"
    assert StreamSpec("flow", {**flow, **versions}).hash == "4e698ee3ab1997af"


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(fps=12.5, short_side=64, jpeg_quality=80, flow=FlowSettings(jpeg_quality=70, bound=3.0)),
        Settings(flow=FlowSettings(backend="torch", tvl1=TVL1Params(lambda_=0.1, warps=3))),
        Settings(untagged_matrix="bt601"),
    ],
)
def test_specs_give_back_the_settings_that_created_them(settings: Settings):
    specs = {stream: settings.spec(stream) for stream in STREAMS}
    assert {stream: settings_from_specs(specs).spec(stream) for stream in STREAMS} == specs


def test_specs_may_have_different_versions_but_no_unknown_entries():
    flow = Settings(short_side=64).spec("flow")

    def changed(**entries: str | int) -> dict[str, StreamSpec]:
        return {"flow": replace(flow, settings={**flow.settings, **entries})}

    assert settings_from_specs(changed(opencv="3.4.0", ffmpeg="2.8", solver="0")) == replace(
        Settings(short_side=64, untagged_matrix="bt709-hd"), flow=FlowSettings(bound=5.0)
    )
    with pytest.raises(UserError, match=r"cannot reproduce the settings of the flow stream: sharpness: 2 -> None"):
        settings_from_specs(changed(sharpness=2))
    with pytest.raises(UserError, match=r"cannot reproduce the settings of the flow stream: order: "):
        settings_from_specs(changed(order="gray, resize, flow"))
    with pytest.raises(UserError, match="does not know the settings of the flow stream"):
        settings_from_specs({"flow": StreamSpec("flow", {})})
    with pytest.raises(UserError, match=r"the settings of the flow stream \(untagged_matrix: bt2020\)"):
        settings_from_specs(changed(untagged_matrix="bt2020"))


def test_a_spec_without_a_matrix_of_untagged_videos_is_an_older_one_with_bt601():
    old, new = (Settings(untagged_matrix=matrix).spec("rgb") for matrix in ("bt601", "bt709-hd"))
    assert Settings().spec("rgb") == new
    assert new.settings == {**old.settings, "untagged_matrix": "bt709-hd"}
    assert old.differences(new) == ["untagged_matrix: bt601 -> bt709-hd"]
    assert settings_from_specs({"rgb": old}).decoded_untagged_matrix == "bt601"
    assert settings_from_specs({"rgb": new}).decoded_untagged_matrix == "bt709-hd"


def test_an_existing_dataset_determines_the_matrix_of_untagged_videos():
    old, new = (Settings(untagged_matrix=matrix).spec("rgb") for matrix in ("bt601", "bt709-hd"))
    assert Settings().of_dataset({}) == Settings()
    assert Settings(fps=10).of_dataset({"rgb": old}) == Settings(fps=10, untagged_matrix="bt601")
    assert Settings().of_dataset({"rgb": new}).decoded_untagged_matrix == "bt709-hd"
    assert Settings(untagged_matrix="bt601").of_dataset({"rgb": old}).spec("rgb") == old
    with pytest.raises(UsageError, match="--untagged-matrix bt709-hd: the rgb stream of the dataset was created with"):
        Settings(untagged_matrix="bt709-hd").of_dataset({"rgb": old})


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Settings(fps=0), "--fps must be between 0.01 and 1000, not 0"),
        (lambda: Settings(short_side=1), "--short-side must be between 2 and 4096, not 1"),
        (lambda: Settings(jpeg_quality=101), "--jpeg-quality must be between 1 and 100, not 101"),
        (lambda: FlowSettings(jpeg_quality=0), "--flow.jpeg-quality must be between 1 and 100, not 0"),
        (lambda: FlowSettings(bound=0), "--flow.bound must be greater than 0 pixels, not 0"),
        (lambda: FlowSettings(device="cuda"), "--flow.device cuda requires --flow.backend torch"),
        (lambda: PreprocessResources(num_workers=0), "--num-workers must be 1 or more, not 0"),
        (lambda: PreprocessResources(cpus_per_task=0), "--cpus-per-task must be greater than 0, not 0"),
        (lambda: PreprocessResources(gpus_per_task=1.5), "--gpus-per-task must be a fraction of 1 or a whole number"),
        (lambda: PreprocessResources(gpus_per_task=0).per_task("cuda"), "requires --gpus-per-task to be greater than"),
        (lambda: PreprocessResources(gpus_per_task=1).per_task("cpu"), "--gpus-per-task requires --flow.backend torch"),
    ],
)
def test_a_value_outside_its_range_is_wrong_usage_that_names_the_option(create, message: str):
    with pytest.raises(UsageError) as error:
        create()
    assert message in str(error.value)


def test_a_task_uses_a_gpu_only_for_flow_on_a_gpu():
    assert PreprocessResources(cpus_per_task=2).per_task("cpu") == {"CPU": 2}
    assert PreprocessResources().per_task("cuda") == {"CPU": 1, "GPU": 1 / 16}
    assert PreprocessResources(gpus_per_task=1).per_task("cuda") == {"CPU": 1, "GPU": 1}
