"""From arguments and manifests to jobs: output paths, and refusals before the start."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_unet.cohorts import cohort as cohort_module
from wsi_unet.cohorts import manifest as manifest_module
from wsi_unet.cohorts.cohort import Cohort, read_cohort
from wsi_unet.cohorts.manifest import COLUMNS, read_manifest
from wsi_unet.csv_cells import guard_cell
from wsi_unet.errors import InputError, ModelError, WsiUnetError
from wsi_unet.segmentation.planning.options import Options
from wsi_unet.storage.local_store import LocalStore


def places(cohort: Cohort) -> list[tuple[str, str | None]]:
    return [(listed.job.slide, listed.job.output) for listed in cohort.slides]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("s/a.svs", "s/b.ome.tif", "t/c.svs"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def manifest(here: Path, text: str, name: str = "list/m.csv") -> str:
    path = here / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


@pytest.mark.parametrize(
    ("slide", "output", "place"),
    [
        ("slides/a.svs", None, "a.ome.zarr"),
        ("a.ome.tif", None, "a.ome.zarr"),
        ("a.ome.zarr/", None, "a.ome.zarr"),
        ("case.12.ndpi", None, "case.12.ome.zarr"),
        ("d/a.svs", "out", "out"),
        ("d/a.svs", "out/", "out/a.ome.zarr"),
        ("s3://bucket/a.svs", "s3://other/out/", "s3://other/out/a.ome.zarr"),
    ],
)
@pytest.mark.usefixtures("here")
def test_one_slide_has_no_report(slide: str, output: str | None, place: str) -> None:
    cohort = read_cohort([slide], output, model="anything")
    assert cohort.folder is None
    assert places(cohort) == [(slide, place)]
    assert cohort.slides[0].job.model == "anything"


@pytest.mark.parametrize(
    ("arguments", "output", "folder", "expected"),
    [
        (["s"], None, "", [("s/a.svs", "a.ome.zarr"), ("s/b.ome.tif", "b.ome.zarr")]),
        (["t", "s/*.svs"], "out", "/out",
         [("t/c.svs", "out/c.ome.zarr"), ("s/a.svs", "out/a.ome.zarr")]),
        (["t/c.svs", "gone.svs"], "out/", "/out",
         [("t/c.svs", "out/c.ome.zarr"), ("gone.svs", "out/gone.ome.zarr")]),
        (["s/a.svs", "s", "./s/a.svs", "s/../s/a.svs"], None, "",
         [("s/a.svs", "a.ome.zarr"), ("s/b.ome.tif", "b.ome.zarr")]),
    ],
)  # fmt: skip
def test_several_slides_go_into_one_folder(
    here: Path,
    arguments: list[str],
    output: str | None,
    folder: str,
    expected: list[tuple[str, str]],
) -> None:
    cohort = read_cohort(arguments, output)
    assert cohort.folder == f"{here}{folder}"
    assert places(cohort) == expected


def test_outputs_may_be_in_an_object_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_module, "open_store", lambda _: LocalStore(here))
    cohort = read_cohort(["s"], "s3://bucket/out/")
    assert cohort.folder == "s3://bucket/out"
    assert places(cohort)[0] == ("s/a.svs", "s3://bucket/out/a.ome.zarr")


def test_a_link_to_the_same_slide_under_its_name_is_one(here: Path) -> None:
    (here / "links").mkdir()
    (here / "links/a.svs").symlink_to(here / "s/a.svs")
    (here / "links/other.svs").symlink_to(here / "s/a.svs")
    assert places(read_cohort(["s/a.svs", "links"], None)) == [
        ("s/a.svs", "a.ome.zarr"),
        ("links/other.svs", "other.ome.zarr"),
    ]


def test_a_clash_names_both_and_the_way_out(here: Path) -> None:
    (here / "t/a.ndpi").touch()
    for arguments in (["s", "t"], ["s/a.svs", "t/a.ndpi"], ["s/a.svs", "./t/a.ndpi"]):
        with pytest.raises(
            InputError, match=r"would both be written to out/a\.ome\.zarr"
        ) as caught:
            read_cohort(arguments, "out")
        assert "s/a.svs" in str(caught.value)
        assert "t/a.ndpi" in str(caught.value)
        assert "'output'" in str(caught.value)


def test_a_manifest_says_what_is_special(here: Path) -> None:
    name = manifest(
        here,
        " slide, output ,model,mpp,tissue,patient, notes,series\n"
        "../s/a.svs,,,,,P-1,\"a, b\"\n"
        "\n"
        "/abs/d.svs,x.ome.zarr,nuclei-he,0.25,none,P-2,,macro image\n"
        "s3://bucket/e.svs, /abs/e.ome.zarr ,,,masks/e.png,P-3, c\n",
    )  # fmt: skip
    options = Options(tile=512, mpp=0.5)
    cohort = read_cohort([name], None, options=options, outside=True)
    first, second, third = cohort.slides
    assert cohort.folder == str(here)
    assert (first.job.slide, first.job.output) == ("list/../s/a.svs", "a.ome.zarr")
    assert first.job.options == options
    assert first.columns == {"patient": "P-1", "notes": "a, b"}
    assert (second.job.slide, second.job.output) == ("/abs/d.svs", "list/x.ome.zarr")
    assert second.job.options == Options(tile=512, mpp=0.25, tissue="none", series="macro image")
    assert second.columns == {"patient": "P-2", "notes": ""}
    assert (third.job.slide, third.job.output) == ("s3://bucket/e.svs", "/abs/e.ome.zarr")
    assert third.job.options.tissue == "list/masks/e.png"
    below = read_cohort([name], "out", outside=True)
    assert [slide.job.output for slide in below.slides] == [
        "out/a.ome.zarr",
        "out/x.ome.zarr",
        "/abs/e.ome.zarr",
    ]
    assert below.folder == str(here / "out")


def test_a_manifest_with_one_slide_is_a_cohort(here: Path) -> None:
    assert read_cohort([manifest(here, "slide\na.svs\n")], "out").folder == str(here / "out")


def test_models_may_lie_beside_the_manifest(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(cohort_module, "check_model_exists", looked.append)
    name = manifest(here, "slide,model\na.svs,mine\nb.svs,mine\nc.svs,nuclei-he\nd.svs,\n")
    models = [listed.job.model for listed in read_cohort([name], None, "theirs").slides]
    assert models == [
        *(str(here / "list/mine"), str(here / "list/mine"), "nuclei-he", str(here / "theirs"))
    ]
    assert sorted(looked) == sorted({*models}), "each is looked at once"


def test_a_manifests_model_runs_alone(here: Path) -> None:
    """An ensemble is for the slides that are given no model of their own."""
    save = "slide,model\ns/a.svs,\ns/b.ome.tif,nuclei-he\n"
    listed = read_cohort(
        [manifest(here, save, "m.csv")], None, "nuclei-he", other_models=["nuclei-he"]
    )
    assert [job.job.other_models for job in listed.slides] == [("nuclei-he",), ()]
    single = read_cohort(["s/a.svs"], None, "mine/", other_models=["hers/"])
    assert (single.slides[0].job.model, single.slides[0].job.other_models) == ("mine/", ("hers/",))
    with pytest.raises(ModelError, match="absent"):
        read_cohort(["s", "t"], None, "nuclei-he", other_models=["absent"])


def test_equal_options_are_one_object(here: Path) -> None:
    rows = "".join(f"{number}.svs,0.25,none\n" for number in range(10))
    cohort = read_cohort([manifest(here, f"slide,mpp,tissue\n{rows}")], None)
    assert len({id(listed.job.options) for listed in cohort.slides}) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'slide' (it is empty)"),
        ("path,output\na.svs,\n", "has no column 'slide' (there are 'path', 'output')"),
        ("slide;output\na.svs;b\n", "separated by commas"),
        ("slide,\n", "lists no slides"),
        ("slide,x,x\na.svs,1,2\n", "column 'x' appears twice"),
        (",".join(["slide", "x", *map(str, range(50_000)), "x"]), "column 'x' appears twice"),
        ("slide,a\na.svs,\"x\nb.svs,1\n", "line 2: isn't CSV"),
        ("slide\n\0\n", "isn't text in UTF-8"),
    ],
)  # fmt: skip
def test_contradictory_arguments_are_refused(here: Path, text: str, message: str) -> None:
    name = manifest(here, text)
    before = sorted(here.rglob("*"))
    with pytest.raises(WsiUnetError) as caught:
        read_cohort([name, "t"], None)
    assert caught.value.exit_code == 2
    assert message in str(caught.value)
    assert "list/m.csv" in str(caught.value) or "inside another" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide,patient\na.svs,1\n ,2\n", "line 3: the column 'slide' is empty"),
        ("slide,mpp\na.svs,0.5\nb.svs,\"0,5\"\n", "line 3: mpp '0,5' isn't a number above 0"),
        ("slide,mpp\na.svs,-1\n", "line 2: mpp '-1' isn't"),
        ("slide,mpp\na.svs,nan\n", "line 2: mpp 'nan' isn't"),
        ("slide,model\na.svs,\nb.svs,nobody\n", "line 3: "),
        ("slide\na.svs,b.svs\n", "line 2: has a cell 'b.svs' without a column"),
        ("slide,\na.svs,\nb.svs,x\n", "line 3: has a cell 'x' without a column"),
        ("slide,note\na.svs,\"one\ntwo\"\n\nb.svs,\"x\" y\n", "line 5: isn't CSV"),
        ("slide\na.svs\nold/a.tif\n", "both be written to a.ome.zarr"),
        ("slide\na.svs\na.svs\n", "line 3) would both be written to a.ome.zarr"),
        ("slide,output\na.svs,x\nb.svs,./y/../x\n", "(list/m.csv, line 2) and list/b.svs"),
        ("slide,output\na.svs,x\nb.svs,x/y\n", "inside another result"),
        ("slide\na.svs\ngs://b/c.svs\n", "line 3: gs://b/c.svs: gs:// can't be read"),
        ("slide,output\na.svs,gs://b/c\n", "line 2: gs://b/c: gs:// can't be read"),
        ("slide,tissue\na.svs,gs://b/c\n", "line 2: gs://b/c: gs:// can't be read"),
        ("slide\na.svs\n~no-such-user/b.svs\n", "line 3: ~no-such-user/b.svs: "),
    ],
)  # fmt: skip
def test_a_wrong_row_fails_itself(here: Path, text: str, message: str) -> None:
    name = manifest(here, text)
    cohort = read_cohort([name, "t"], None)
    (failed,) = (slide for slide in cohort.slides if slide.error is not None)
    assert len(cohort.jobs) == len(cohort.slides) - 1
    assert message in str(failed.error)
    assert str(failed.error).startswith("list/m.csv, line ")
    assert "\n" not in str(failed.error)
    assert len(failed.given) == len(COLUMNS)


@pytest.mark.parametrize("output", [None, "out", "out/"])
@pytest.mark.parametrize(
    ("place", "inside"),
    [
        ("x.ome.zarr", True),
        ("below/../x", True),
        ("HERE/out/list/x", None),
        ("../x", False),
        ("below/../../x", False),
        ("/elsewhere/x", False),
        ("..", False),
        ("s3://bucket/x", False),
        ("~/x", False),
    ],
)
def test_an_output_stays_in_its_folder_unless_that_is_allowed(
    here: Path, output: str | None, place: str, inside: bool | None
) -> None:
    (here / "deep").mkdir()
    row = place.replace("HERE", str(here))
    name = manifest(here, f"slide,output\na.svs,{row}\nb.svs,\n", "deep/m.csv")
    if output is None and place in ("../x", "below/../../x"):
        inside = True  # beside the manifest's folder, but in the current one
    refused, other = read_cohort([name], output).slides
    assert other.error is None
    assert (refused.error is None) == (inside is not False)
    if refused.error is not None:
        assert f"line 2: the output {row} lies outside of" in str(refused.error)
    assert read_cohort([name], output, outside=True).slides[0].error is None


def test_a_slide_that_is_listed_and_named_is_refused(here: Path) -> None:
    name = manifest(here, "slide,mpp\n../t/c.svs,0.5\n")
    with pytest.raises(InputError, match="both be written"):
        read_cohort([name, "t"], None)


def test_files_that_arent_manifests(here: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv: can't be read: No such file"):
        read_cohort(["gone.csv"], None)
    for text in ("slide\na.svs\n", "\ufeffslide\na.svs\n"):
        (here / "wide.csv").write_bytes(text.encode("utf-16-le"))
        with pytest.raises(InputError, match=r"wide\.csv: isn't text in UTF-8; save it as CSV"):
            read_cohort(["wide.csv"], None)
    os.mkfifo(here / "pipe.csv")
    with pytest.raises(InputError, match=r"pipe\.csv: can't be read: it is a named pipe"):
        read_cohort(["pipe.csv"], None)


def test_names_of_files_may_be_any_bytes(here: Path) -> None:
    name = os.fsdecode(b"caf\xe9.svs")
    (here / "s" / name).touch()
    (here / "m.csv").write_bytes(b"slide,note\ns/caf\xe9.svs,\xe9\n")
    (slide,) = read_cohort(["m.csv"], "out").slides
    assert slide.error is None
    assert Path(slide.job.slide).exists()
    assert slide.columns == {"note": "\udce9"}


def test_a_model_that_is_not_there_is_one_refusal(here: Path) -> None:
    with pytest.raises(ModelError):
        read_cohort(["s"], None, model=str(here / "nobody"))


def test_results_do_not_go_into_a_zarr(here: Path) -> None:
    (here / "z").mkdir()
    (here / "z/zarr.json").touch()
    with pytest.raises(InputError, match="is a Zarr"):
        read_cohort(["s"], "z")


def test_manifests_may_be_in_an_object_store(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "m.csv").write_text("slide,output\na.svs,\nb/c.svs,x\n")
    monkeypatch.setattr(manifest_module, "open_store", lambda _: LocalStore(here))
    assert places(read_cohort(["s3://bucket/lists/m.csv"], None)) == [
        ("s3://bucket/lists/a.svs", "a.ome.zarr"),
        ("s3://bucket/lists/b/c.svs", "s3://bucket/lists/x"),
    ]
    with pytest.raises(InputError, match="no such file"):
        read_cohort(["s3://bucket/lists/n.csv"], None)


def attempt(arguments: list[str], output: str) -> tuple[Cohort | None, str]:
    try:
        return read_cohort(arguments, output), ""
    except WsiUnetError as error:
        return None, str(error)


cells = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8) | st.sampled_from(
    ["a,b", 'say "so"', "two\nlines", " blanks ", "=1+1", "'=1", "''-x", "-5", "\udce9", "ünï"]
)


@given(
    st.lists(st.tuples(st.integers(0, 10**6), cells, cells), min_size=1, max_size=6,
             unique_by=lambda row: row[0]),
    st.permutations(["slide", "one", "two"]),
    st.booleans(),
)  # fmt: skip
def test_any_table_comes_back_as_it_was(
    rows: list[tuple[int, str, str]], order: list[str], marked: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, order, quoting=csv.QUOTE_ALL)
    writer.writeheader()
    written = [{"slide": f"{number}.svs", "one": one, "two": two} for number, one, two in rows]
    writer.writerows({name: guard_cell(cell) for name, cell in row.items()} for row in written)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.csv"
        path.write_bytes(text.getvalue().encode("utf-8-sig" if marked else "utf-8"))
        assert [row for _, row in read_manifest(str(path))] == written


@given(
    st.binary(max_size=60) | st.text(max_size=40).map(lambda text: f"slide,mpp\n{text}".encode())
)
def test_whatever_a_file_holds_it_is_rows_or_one_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.csv"
        path.write_bytes(data)
        cohort, refusal = attempt([str(path)], name)
    if cohort is None:
        assert len(refusal.splitlines()) == 1
    else:
        outputs = [job.output for job in cohort.jobs]
        assert len(set(outputs)) == len(outputs)
        refusals = [str(slide.error) for slide in cohort.slides if slide.error is not None]
        assert len(refusals) + len(outputs) > 0
        assert all(len(refusal.splitlines()) == 1 for refusal in refusals)


stems = st.text("ab.", min_size=1, max_size=3).filter(lambda stem: stem.strip("."))


@given(st.lists(st.tuples(st.sampled_from(["x", "y"]), stems), min_size=2, max_size=6))
def test_no_two_slides_share_an_output(slides: list[tuple[str, str]]) -> None:
    """Either every slide has a place of its own, or the refusal names two that haven't."""
    arguments = [f"/nowhere/{folder}/{stem}.svs" for folder, stem in slides]
    clash = len({stem for _, stem in slides}) < len(set(slides))
    cohort, refusal = attempt(arguments, "/nowhere/out")
    assert (cohort is None) == clash
    if cohort is None:
        assert sum(argument in refusal for argument in set(arguments)) >= 2
    else:
        found = [listed.job.output for listed in cohort.slides]
        assert len(set(found)) == len(found) == len(set(slides))


def test_checkpoints_and_programs_are_models_of_many_slides_too(here: Path) -> None:
    """They are loaded when the first slide begins; here it is enough that they are there."""
    (here / "net.onnx").write_bytes(b"\x08\x08")
    (here / "net.pth").write_bytes(b"PK\x03\x04")
    for name in ("net.onnx", "net.pth"):
        slides = read_cohort(["s", "t"], None, name).slides
        assert {listed.job.model for listed in slides} == {str(here / name)}
    with pytest.raises(ModelError, match=r"absent\.onnx"):
        read_cohort(["s", "t"], None, "absent.onnx")
