"""load_app: from a name to the app, with an answer for everything that may be wrong with it."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from pulpo_pool.app.loading import load_app
from pulpo_pool.app.pulpo import Pulpo
from pulpo_pool.errors import AppImportError, AppNotFound, ExitCode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _import_state(monkeypatch):
    """Forget what a test imported: modules of the same name lie in other folders."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str = "from pulpo_pool import Pulpo\npulpo = Pulpo()\n") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return tmp_path

    return write


@pytest.mark.parametrize("spec", ["shop:pulpo", "shop", "shop:", " shop : pulpo "])
def test_an_app_is_found_by_module_and_attribute(write, spec):
    assert isinstance(load_app(spec, write("shop.py")), Pulpo)


def test_packages_and_dotted_attributes_are_followed(write):
    directory = write(
        "shop/jobs.py",
        """
        from pulpo_pool import Pulpo
        class Apps:
            class Main:
                pulpo = Pulpo()
        """,
    )

    assert isinstance(load_app("shop.jobs:Apps.Main.pulpo", directory), Pulpo)


def test_the_directory_comes_first_on_the_path(write):
    """A folder's own module wins over one of the same name elsewhere on the path."""
    directory = write("shop.py")
    sys.path.insert(0, str(write("elsewhere/shop.py", "") / "elsewhere"))

    assert isinstance(load_app("shop:pulpo", directory), Pulpo)
    assert sys.path[0] == str(directory.resolve())


def test_one_app_under_two_names_is_one_app(write):
    directory = write("shop.py", "from pulpo_pool import Pulpo\na = b = Pulpo()\n")

    assert isinstance(load_app("shop", directory), Pulpo)


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("", "names no app: write it as MODULE:ATTRIBUTE"),
        (":pulpo", "names no app"),
        ("my-shop:pulpo", "names no app"),
        ("shop..jobs:pulpo", "names no app"),
        ("shop.py:pulpo", "did you mean 'shop:pulpo'"),
        ("sub/shop.py", "did you mean 'sub.shop:pulpo'"),
        ("shp:pulpo", "there is no module 'shp' in .*; did you mean 'shop'?"),
        ("Shop:pulpo", "did you mean 'shop'"),
        ("nothing_like_it:pulpo", "there is no module 'nothing_like_it' in [^;]*$"),
        ("package.jbos:pulpo", "no module 'package.jbos' in .*did you mean 'package.jobs'"),
        ("pakcage.jobs:pulpo", "no module 'pakcage' in .*did you mean 'package.jobs'"),
        ("shop:plupo", r"'shop' \(.*shop.py\) has no 'plupo'; did you mean 'pulpo'"),
        ("shop:pulpo.nothing", "has no 'pulpo.nothing'"),
        ("shop:number.real.plupo", "has no 'number.real.plupo'"),
        ("shop:Pulpo", "shop:Pulpo is no Pulpo, it is a class; did you mean shop:pulpo"),
        ("shop:number", "is no Pulpo, it is of type int; did you mean shop:pulpo"),
        ("empty", r"has no Pulpo; write `pulpo = Pulpo\(\)`"),
        ("several", "has several apps; did you mean several:one or several:two"),
        ("types:pulpo", r"'types' \(.*types.py\) has no 'pulpo'"),
    ],
)
def test_what_does_not_exist_is_named_with_the_nearest_that_does(write, spec, answer):
    write("shop.py", "from pulpo_pool import Pulpo\npulpo = Pulpo()\nnumber = 7\n")
    write("package/__init__.py", "")
    write("package/jobs.py")
    write("empty.py", "")
    directory = write("several.py", "from pulpo_pool import Pulpo\none, two = Pulpo(), Pulpo()\n")

    with pytest.raises(AppNotFound, match=answer) as caught:
        load_app(spec, directory)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "kind", "last_line"),
    [
        ("def f():\n    raise KeyError('stock')\nf()\n", KeyError, "KeyError: 'stock'"),
        ("import sys\nsys.exit('no database')\n", SystemExit, "SystemExit: no database"),
        ("import no_such_dependency\n", ModuleNotFoundError, "No module named 'no_such_dep"),
        ("from pulpo_pool import Nonsense\n", ImportError, "cannot import name 'Nonsense'"),
        ("def f(:\n", SyntaxError, "SyntaxError: "),
        (
            "import pulpo_pool as p\nj = p.Pulpo().job('x')\ndef f(): ...\nj(f)\nj(f)\n",
            Exception,
            "x has two handlers: shop:f and shop:f",
        ),
    ],
)
def test_an_app_that_raises_shows_its_own_traceback_only(write, text, kind, last_line):
    directory = write("shop.py", text)

    with pytest.raises(AppImportError, match=r"shop raised .* while it was imported") as caught:
        load_app("shop:pulpo", directory)

    shown = caught.value.app_traceback()
    assert caught.value.exit_code is ExitCode.APP_DOES_NOT_BOOT
    assert isinstance(caught.value.__cause__, kind)
    assert last_line in shown.strip().splitlines()[-1]
    assert "shop.py" in shown
    assert "importlib" not in shown
    assert "loading.py" not in shown
    assert "pulpo.py" not in shown


def test_the_causes_of_the_apps_error_are_shown_without_our_frames_too(write):
    directory = write(
        "shop.py",
        """
        from pulpo_pool import Message
        try:
            Message(request_type="")
        except ValueError as error:
            raise RuntimeError("cannot start") from error
        """,
    )

    with pytest.raises(AppImportError) as caught:
        load_app("shop", directory)

    shown = caught.value.app_traceback()
    assert "InvalidMessage: request_type" in shown
    assert "RuntimeError: cannot start" in shown
    assert "message.py" not in shown


def test_control_c_during_the_import_is_nobodys_mistake(write):
    directory = write("shop.py", "raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        load_app("shop:pulpo", directory)
