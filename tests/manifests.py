"""What a manifest makes of a container: its files, its environment, its command."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "deploy" / "kubernetes"

# What `kubectl create secret` makes by hand, for the overlay that has none of its own.
BROKER = {"url": base64.b64encode(b"beanstalkd://beanstalkd:11300").decode()}


@dataclass
class Pod:
    """The pod of a Deployment or StatefulSet, among all the resources it is applied with."""

    resources: dict[tuple[str, str], dict[str, Any]]
    kind: str = "Deployment"
    name: str = "pulpo-pool"

    @property
    def template(self):
        return self.resources[self.kind, self.name]["spec"]["template"]

    @property
    def spec(self):
        return self.template["spec"]

    @property
    def labels(self):
        return self.template["metadata"]["labels"]

    @property
    def container(self):
        [container] = self.spec["containers"]
        return container

    @property
    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.container["ports"]}

    @property
    def mounts(self):
        return {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}

    @property
    def volumes(self):
        return {volume["name"]: volume for volume in self.spec.get("volumes", [])}

    def environment(self):
        """Return what the kubelet would set; it knows names, not what is behind them."""
        fields = {"metadata.name": "pulpo-pool-6d4cf56db6-x7k2p"}
        return {
            each["name"]: each["value"]
            if "value" in each
            else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
            for each in self.container["env"]
        }

    def laid_out(self, root):
        """Make the files that are mounted, below `root`; return the environment, moved there."""
        for name, mounted in self.mounts.items():
            place = root / mounted.removeprefix("/")
            place.mkdir(parents=True)
            for file, text in self._content(self.volumes[name]).items():
                (place / file).write_text(text)
        moved = tuple(self.mounts.values())
        return {
            name: f"{root}{value}" if value.startswith(moved) else value
            for name, value in self.environment().items()
        }

    def _content(self, volume):
        if "configMap" in volume:
            return self.resources["ConfigMap", volume["configMap"]["name"]]["data"]
        if "secret" in volume:
            named = self.resources.get(("Secret", volume["secret"]["secretName"]))
            data = named["data"] if named else BROKER
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        assert "emptyDir" in volume
        return {}
