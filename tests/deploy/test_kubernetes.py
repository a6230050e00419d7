"""The manifests: what a cluster would say of them, and whether the program is as they think."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import kustomize
import pytest
import yaml
from manifests import KUBERNETES, ROOT, Pod
from servers import needed

from pulpo_pool.cli.commands import route
from pulpo_pool.memory import parse_size
from pulpo_pool.settings import load_settings

OVERLAYS = ("dev", "prod")
OLDEST, NEWEST = "1.29", "1.37"  # of Kubernetes, as docs/deploying.md says
OF_OTHERS = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yml"))

TEXT = {"type": "string", "minLength": 1}
LABELS = {"type": "object", "additionalProperties": TEXT, "minProperties": 1}


def exactly(required, **optional):
    """Return the schema of an object with these members and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


DURATION = {"type": "string", "pattern": "^([0-9]+(ms|[smhdw]))+$"}
RULE = exactly(
    {"expr": TEXT},
    record=TEXT,
    alert=TEXT,
    labels=LABELS,
    annotations=LABELS,
    **{"for": DURATION, "keep_firing_for": DURATION},
)
GROUP = exactly(
    {"name": TEXT, "rules": {"type": "array", "items": RULE, "minItems": 1}}, interval=DURATION
)
TRIGGER = exactly(
    {
        "type": {"const": "beanstalkd"},
        "metadata": exactly(
            {
                "server": {"type": "string", "pattern": r"^[a-z0-9.-]+:\d+$"},
                "tube": TEXT,
                "value": {"type": "string", "pattern": r"^[1-9]\d*$"},
            },
            activationValue={"type": "string", "pattern": r"^\d+$"},
            includeDelayed={"enum": ["true", "false"]},
        ),
    }
)
COUNT = {"type": "integer", "minimum": 0}
POLICY = exactly({"type": {"enum": ["Pods", "Percent"]}, "value": COUNT, "periodSeconds": COUNT})
BEHAVIOR = exactly(
    {
        "scaleDown": exactly(
            {"stabilizationWindowSeconds": COUNT, "policies": {"type": "array", "items": POLICY}}
        )
    }
)
SPECS = {
    "PodMonitor": exactly(
        {
            "selector": exactly({"matchLabels": LABELS}),
            "podMetricsEndpoints": {
                "type": "array",
                "minItems": 1,
                "items": exactly(
                    {"port": TEXT, "path": TEXT}, interval=DURATION, scrapeTimeout=DURATION
                ),
            },
        }
    ),
    "ScaledObject": exactly(
        {
            "scaleTargetRef": exactly({"name": TEXT}),
            "triggers": {"type": "array", "minItems": 1, "items": TRIGGER},
        },
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
        advanced=exactly({"horizontalPodAutoscalerConfig": exactly({"behavior": BEHAVIOR})}),
    ),
    "PrometheusRule": exactly({"groups": {"type": "array", "items": GROUP, "minItems": 1}}),
}


@pytest.fixture(scope="module")
def rendered():
    return {name: kustomize.render(KUBERNETES / "overlays" / name) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def resources(request, rendered):
    return copy.deepcopy(rendered[request.param])


@pytest.fixture
def prod(rendered):
    return copy.deepcopy(rendered["prod"])


@pytest.fixture
def pod(resources):
    return Pod(resources)


@pytest.fixture
def loaded(pod, tmp_path):
    """Return the settings as the container would read them."""
    return load_settings({}, directory=tmp_path, environ=pod.laid_out(tmp_path))


def quantity(text):
    return parse_size(text)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_tests_render_what_kubectl_does(overlay, rendered):
    if shutil.which("kubectl") is None:
        pytest.skip("there is no kubectl here to compare with")
    folder = KUBERNETES / "overlays" / overlay
    command = ["kubectl", "kustomize", str(folder)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    hashed = r"\b(pulpo-pool-(?:config|broker))-[a-z0-9]{10}\b"

    assert kustomize.documents(re.sub(hashed, r"\1", text)) == rendered[overlay]


def test_a_kustomization_that_the_tests_do_not_understand_is_no_passing_test(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("namePrefix: a-\n")

    with pytest.raises(kustomize.Unknown, match="namePrefix"):
        kustomize.render(tmp_path)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(resources, version):
    ours = [each for each in resources.values() if each["apiVersion"] not in OF_OTHERS]
    for resource in ours:
        kubernetes_validate.validate(resource, version, strict=True)

    assert {each["kind"] for each in ours} >= {"Deployment", "StatefulSet", "Service"}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_field_that_kubernetes_does_not_know_is_found(pod, version):
    pod.container["readinesProbe"] = pod.container["readinessProbe"]

    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(
            pod.resources["Deployment", "pulpo-pool"], version, strict=True
        )


def test_the_supported_versions_are_the_documented_ones():
    page = (ROOT / "docs" / "deploying.md").read_text()

    assert f"Kubernetes {OLDEST} to {NEWEST}" in page


def test_resources_of_others_have_the_shape_that_their_operators_read(prod):
    theirs = {each["kind"]: each for each in prod.values() if each["apiVersion"] in OF_OTHERS}
    for kind, resource in theirs.items():
        jsonschema.validate(resource["spec"], SPECS[kind])

    assert theirs.keys() == SPECS.keys()


def test_the_operators_rules_are_prometheus_rules(prod):
    groups = [g for file in RULES for g in yaml.safe_load(file.read_text())["groups"]]

    assert groups
    assert prod["PrometheusRule", "pulpo-pool"]["spec"]["groups"] == groups, (
        "run deploy/kubernetes/components/prometheusrule/write.py"
    )


def test_the_dashboard_is_where_grafanas_sidecar_looks(prod):
    dashboard = prod["ConfigMap", "pulpo-pool-dashboard"]

    assert dashboard["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert dashboard["data"].keys() == {"pulpo-pool.json"}


class TestThePool:
    """Each word that a manifest says to the program, or about it, is one that it knows."""

    def test_its_command_is_run(self, pod):
        assert "command" not in pod.container, "the image's entrypoint is the program"
        assert route(pod.container["args"]) == ["run"]

    def test_its_settings_are_read_without_a_doubt(self, loaded):
        settings = loaded.settings

        assert loaded.warnings == ()
        assert settings.broker == "beanstalkd://beanstalkd:11300"
        assert settings.name.startswith("pulpo-pool-")
        assert loaded.is_given("workers"), "auto would count the node's CPUs"

    def test_the_longest_name_of_a_pod_is_a_pools_name(self, tmp_path):
        """A Deployment's pods are named in 63 characters."""
        environ = {"PULPO_POOL_NAME": "p" * 63}

        assert load_settings({}, directory=tmp_path, environ=environ).settings.name == "p" * 63

    def test_every_port_is_the_one_it_listens_on(self, pod, loaded, prod):
        host, port = loaded.settings.http_address
        annotated = pod.template["metadata"].get("annotations", {}).get("prometheus.io/port")
        [endpoint] = prod["PodMonitor", "pulpo-pool"]["spec"]["podMetricsEndpoints"]

        assert host == "0.0.0.0"
        assert pod.ports == {"http": port}
        assert annotated in (None, str(port))
        assert endpoint["port"] == "http"

    def test_it_is_given_time_to_drain(self, pod, loaded):
        assert loaded.settings.grace == pod.spec["terminationGracePeriodSeconds"]

    def test_its_workers_fit_into_its_memory(self, pod, loaded):
        """64 MiB for each of master, template, keeper and web is ample for what they are."""
        settings = loaded.settings
        limit = quantity(pod.container["resources"]["limits"]["memory"].replace("i", "iB"))

        assert 0 < settings.workers * settings.max_memory_hard + 4 * (64 << 20) <= limit

    def test_what_it_writes_goes_to_a_volume(self, pod, loaded):
        state = pod.mounts["state"]

        assert loaded.settings.state_dir == state
        assert "emptyDir" in pod.volumes["state"]
        assert pod.mounts["tmp"] == "/tmp"

    def test_probes_ask_for_the_queue_only_where_that_ends_no_pod(self, pod):
        probes = {name: pod.container[name]["httpGet"]["path"] for name in PROBES}

        assert probes == {
            "startupProbe": "/healthz",
            "livenessProbe": "/healthz",
            "readinessProbe": "/readyz",
        }
        assert {pod.container[name]["httpGet"]["port"] for name in PROBES} == {"http"}


PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class TestSafety:
    @pytest.mark.parametrize(
        ("kind", "name"), [("Deployment", "pulpo-pool"), ("StatefulSet", "beanstalkd")]
    )
    def test_pods_keep_to_the_restricted_standard(self, resources, kind, name):
        pod = Pod(resources, kind, name)

        assert pod.spec["securityContext"]["runAsNonRoot"] is True
        assert pod.spec["securityContext"]["runAsUser"] > 10_000
        assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod.spec["automountServiceAccountToken"] is False
        assert pod.spec["enableServiceLinks"] is False
        assert pod.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in pod.container["resources"]["limits"]
        assert "cpu" not in pod.container["resources"]["limits"], "throttling makes hearts miss"

    def test_no_manifest_has_a_secret_but_the_dev_overlay(self, prod):
        assert [name for kind, name in prod if kind == "Secret"] == []

    def test_an_eviction_takes_one_pool_at_a_time_and_waits_for_no_sick_one(self, resources, pod):
        spec = resources["PodDisruptionBudget", "pulpo-pool"]["spec"]

        assert spec["maxUnavailable"] == 1
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert spec["selector"]["matchLabels"] == pod.labels


class TestWhatBelongsTogether:
    def test_selectors_find_their_pods(self, resources):
        pods = [Pod(resources), Pod(resources, "StatefulSet", "beanstalkd")]
        for each in pods:
            owner = resources[each.kind, each.name]
            assert owner["spec"]["selector"]["matchLabels"] == each.labels
        selected = {
            ("PodMonitor", "pulpo-pool"): ("selector", 0),
            ("NetworkPolicy", "pulpo-pool"): ("podSelector", 0),
            ("NetworkPolicy", "beanstalkd"): ("podSelector", 1),
        }
        for key, (field, index) in selected.items():
            if key in resources:
                labels = resources[key]["spec"][field]["matchLabels"]
                assert labels.items() <= pods[index].labels.items()
        assert resources["Service", "beanstalkd"]["spec"]["selector"] == pods[1].labels

    def test_named_ports_exist(self, prod):
        pods = {"pulpo-pool": Pod(prod), "beanstalkd": Pod(prod, "StatefulSet", "beanstalkd")}
        [port] = prod["Service", "beanstalkd"]["spec"]["ports"]
        policed = {
            name: prod["NetworkPolicy", name]["spec"]["ingress"][0]["ports"][0]["port"]
            for name in pods
        }

        assert port["targetPort"] in pods["beanstalkd"].ports
        assert all(policed[name] in pods[name].ports for name in pods)

    def test_keda_counts_the_pools_own_queues_and_has_its_replicas_to_itself(self, prod, tmp_path):
        pod = Pod(prod)
        settings = load_settings({}, directory=tmp_path, environ=pod.laid_out(tmp_path)).settings
        spec = prod["ScaledObject", "pulpo-pool"]["spec"]
        service = prod["Service", "beanstalkd"]
        [port] = service["spec"]["ports"]
        server = f"beanstalkd.{service['metadata']['namespace']}.svc:{port['port']}"

        assert "replicas" not in prod["Deployment", "pulpo-pool"]["spec"]
        assert ("Deployment", spec["scaleTargetRef"]["name"]) in prod
        assert [t["metadata"]["tube"] for t in spec["triggers"]] == list(settings.queues)
        assert {t["metadata"]["server"] for t in spec["triggers"]} == {server}

    def test_the_queue_keeps_its_jobs_and_takes_the_pools_largest(self, resources, loaded):
        pod = Pod(resources, "StatefulSet", "beanstalkd")
        arguments = pod.container["args"]
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        command = [needed("beanstalkd"), *arguments, "-v"]  # which parses, and says its version
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

        assert said.startswith("beanstalkd ")
        assert options["-b"] == pod.mounts["data"]
        assert int(options["-p"]) == pod.ports["beanstalkd"]
        assert int(options["-z"]) >= loaded.settings.max_message_bytes
