"""As much of kustomize as deploy/kubernetes uses, for machines without kubectl.

A field that it does not know is an error, and wherever there is a kubectl a test compares the two.
Names get no hash of their content.
"""

from __future__ import annotations

import base64

import yaml

KNOWN = {
    "apiVersion",
    "components",
    "configMapGenerator",
    "images",
    "kind",
    "namespace",
    "patches",
    "resources",
    "secretGenerator",
}
KNOWN_OF_GENERATORS = {"behavior", "files", "literals", "name", "options"}


class Unknown(Exception):
    """A field that is not supported here."""


def render(folder):
    """Return the resources of a folder with a kustomization.yaml, by (kind, name)."""
    return _apply(folder, {})


def documents(text):
    """Return resources in YAML by (kind, name)."""
    found = [each for each in yaml.safe_load_all(text) if each is not None]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def _apply(folder, resources):
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    _refuse(plan.keys() - KNOWN, folder)
    for entry in plan.get("resources", []):
        path = folder / entry
        new = render(path) if path.is_dir() else documents(path.read_text())
        assert not new.keys() & resources.keys(), f"{path}: a resource comes twice"
        resources |= new
    for kind in ("ConfigMap", "Secret"):
        for generator in plan.get(f"{kind[0].lower()}{kind[1:]}Generator", []):
            _generate(folder, kind, generator, resources)
    for entry in plan.get("components", []):
        resources = _apply(folder / entry, resources)
    for entry in plan.get("patches", []):
        _patch(folder, entry, resources)
    for resource in resources.values():
        if "namespace" in plan:
            resource["metadata"]["namespace"] = plan["namespace"]
        for image in plan.get("images", []):
            _rename(image, resource)
    return resources


def _refuse(unknown, where):
    if unknown:
        raise Unknown(f"{where}: {', '.join(sorted(unknown))}")


def _generate(folder, kind, generator, resources):
    _refuse(generator.keys() - KNOWN_OF_GENERATORS, folder)
    options = generator.get("options", {})
    _refuse(options.keys() - {"labels", "disableNameSuffixHash"}, folder)
    content = {path: (folder / path).read_text() for path in generator.get("files", [])}
    content |= dict(literal.split("=", 1) for literal in generator.get("literals", []))
    resource = {"apiVersion": "v1", "kind": kind, "metadata": {"name": generator["name"]}}
    if "labels" in options:
        resource["metadata"]["labels"] = options["labels"]
    if kind == "Secret":
        resource["type"] = "Opaque"
        content = {k: base64.b64encode(v.encode()).decode() for k, v in content.items()}
    resource["data"] = content
    key = kind, generator["name"]
    assert (key in resources) is (generator.get("behavior") == "replace"), f"{folder}: {key}"
    resources[key] = resource


def _patch(folder, entry, resources):
    _refuse(entry.keys() - {"path", "patch", "target"}, folder)
    patch = yaml.safe_load(entry.get("patch") or (folder / entry["path"]).read_text())
    if isinstance(patch, list):
        target = entry["target"]
        for operation in patch:
            _operate(resources[target["kind"], target["name"]], operation)
    else:
        key = patch["kind"], patch["metadata"]["name"]
        resources[key] = _merged(resources[key], patch)


def _operate(resource, operation):
    """Apply one operation of RFC 6902, to the members of objects alone."""
    *way, last = operation["path"].removeprefix("/").split("/")
    place = resource
    for step in way:
        place = place[step.replace("~1", "/").replace("~0", "~")]
    verb = operation["op"]
    if verb == "remove":
        del place[last]
    elif verb == "add" or (verb == "replace" and last in place):
        place[last] = operation["value"]
    else:
        raise Unknown(f"{verb} {operation['path']}")


def _merged(old, new):
    """Return a strategic merge: objects by member, lists of named things by name, new first."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {k: _merged(old[k], v) if k in old else v for k, v in new.items()}
    named = [isinstance(each, dict) and "name" in each for each in (*_list(old), *_list(new))]
    if named and all(named):
        before = {each["name"]: each for each in old}
        patched = [_merged(before.pop(each["name"], {}), each) for each in new]
        return patched + list(before.values())
    return new


def _list(value):
    return value if isinstance(value, list) else []


def _rename(image, value):
    """Give an image its new name and tag wherever a container has it."""
    if isinstance(value, list):
        for each in value:
            _rename(image, each)
    elif isinstance(value, dict):
        if value.get("image") == image["name"]:
            value["image"] = f"{image['newName']}:{image['newTag']}"
        for each in value.values():
            _rename(image, each)
