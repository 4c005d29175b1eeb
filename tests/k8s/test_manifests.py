"""1. the output of kustomize is strictly valid for every Kubernetes version from 1.30 on;
2. the numbers of a pod are consistent with each other and with the service;
3. every reference resolves: selectors, probes, settings, volumes, metrics;
4. the pods meet the restricted standard, and only the pinned bundle starts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

import service
from hub.sources.registry import Reference
from service.app import create_app
from service.cli import build_parser
from service.runtime.server import LINGER_S
from service.settings import Settings, load_settings

if TYPE_CHECKING:
    from conftest import Documents, Prometheus

ROOT = Path(service.__file__).parents[1]
K8S = ROOT / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
EVERY_OVERLAY = pytest.mark.parametrize("overlay", OVERLAYS)
BUILDS = [*(f"overlays/{name}" for name in OVERLAYS), "kserve", "kserve-oci"]
# The first version of Kubernetes that knows what a build uses.
SINCE = {"overlays/cpu-image": "1.31"}
# Custom resources: Kubernetes does not ship their schemas.
CUSTOM = {"PodMonitor", "PrometheusRule", "ScaledObject", "ServingRuntime", "InferenceService", "AscendJob"}
# Margin for work after the last response.
MARGIN_S = 5

Render = Callable[[str], "Documents"]


def one(documents: Documents, kind: str) -> Any:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def pod_of(documents: Documents) -> Any:
    return one(documents, "Deployment")["spec"]["template"]["spec"]


def settings_of(documents: Documents) -> Settings:
    """The settings as the pod would read them."""
    (data,) = [one["data"] for one in documents if one["metadata"]["name"].startswith("repvgg-settings-")]
    return load_settings({}, data)[0]


def jobs() -> Documents:
    return [yaml.safe_load(path.read_text()) for path in sorted((K8S / "jobs").glob("*.yaml"))]


def pods(render: Render) -> Iterator[tuple[str, Any]]:
    for overlay in OVERLAYS:
        yield overlay, pod_of(render(f"overlays/{overlay}"))
    for job in jobs():
        spec = job["spec"]
        yield job["metadata"]["name"], spec.get("replicaSpecs", {}).get("Worker", spec)["template"]["spec"]


def containers(pod: Any) -> list[Any]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_every_resource_is_strictly_valid_from_1_30_to_the_newest_kubernetes(render: Render) -> None:
    """In the oldest and the newest version: what both accept, those in between accept too."""
    versions = [version for version in all_versions() if int(version.split(".")[1]) >= 30]
    assert len(versions) > 2
    documents = [("", document) for document in jobs()]
    documents += [(build, document) for build in BUILDS for document in render(build)]
    different = {
        (SINCE.get(build, versions[0]), json.dumps(document)): document
        for build, document in documents
        if document["kind"] not in CUSTOM
    }
    for (oldest, _), document in different.items():
        for version in (oldest, versions[-1]):
            kubernetes_validate.validate(document, version, strict=True)


@EVERY_OVERLAY
def test_cpus_are_whole_and_requests_equal_limits(overlay: str, render: Render) -> None:
    for container in containers(pod_of(render(f"overlays/{overlay}"))):
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert int(resources["limits"]["cpu"]) >= 1


@EVERY_OVERLAY
def test_the_grace_period_covers_the_whole_shutdown(overlay: str, render: Render) -> None:
    documents = render(f"overlays/{overlay}")
    pod, settings = pod_of(documents), settings_of(documents)
    waiting_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    ending_s = settings.drain_seconds + settings.timeout_ms / 1000 + LINGER_S
    assert pod["terminationGracePeriodSeconds"] >= waiting_s + ending_s + MARGIN_S


@EVERY_OVERLAY
def test_a_disruption_is_allowed_and_a_rollout_never_reduces_capacity(overlay: str, render: Render) -> None:
    documents = render(f"overlays/{overlay}")
    assert one(documents, "PodDisruptionBudget")["spec"]["maxUnavailable"] >= 1
    rolling = one(documents, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxUnavailable"], rolling["maxSurge"]) == (0, 1)


@EVERY_OVERLAY
def test_one_autoscaler_owns_the_number_of_replicas(overlay: str, render: Render) -> None:
    documents = render(f"overlays/{overlay}")
    (scaler,) = [one["spec"] for one in documents if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")]
    deployment = one(documents, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaler.get("minReplicas", scaler.get("minReplicaCount")) >= 2


@EVERY_OVERLAY
def test_every_selector_selects_the_pods(overlay: str, render: Render) -> None:
    documents = render(f"overlays/{overlay}")
    deployment = one(documents, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        one(documents, "Service")["spec"]["selector"],
        one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        one(documents, "PodMonitor")["spec"]["selector"]["matchLabels"],
        *(
            spread["labelSelector"]["matchLabels"]
            for spread in deployment["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


@EVERY_OVERLAY
def test_probes_use_existing_paths_on_the_listening_port(overlay: str, render: Render) -> None:
    documents = render(f"overlays/{overlay}")
    (container,) = pod_of(documents)["containers"]
    settings = settings_of(documents)
    (port,) = container["ports"]
    assert (settings.host, settings.port) == ("0.0.0.0", port["containerPort"])
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/startupz", "readiness": "/readyz", "liveness": "/livez"}
    scraped = {endpoint["path"] for endpoint in one(documents, "PodMonitor")["spec"]["podMetricsEndpoints"]}
    assert {*paths.values(), *scraped} <= {route.path for route in create_app(settings).routes}
    assert container["livenessProbe"]["timeoutSeconds"] >= 3
    named = [one(documents, "Service")["spec"]["ports"][0]["targetPort"]]
    named += [ports["port"] for rule in one(documents, "NetworkPolicy")["spec"]["ingress"] for ports in rule["ports"]]
    assert set(named) == {port["name"]}


@EVERY_OVERLAY
def test_every_setting_and_the_command_are_valid(overlay: str, render: Render) -> None:
    documents = render(f"overlays/{overlay}")
    settings_of(documents)  # raises ConfigError
    (container,) = pod_of(documents)["containers"]
    assert build_parser().parse_args(container["args"]).verb == "serve"
    assert {variable["name"] for variable in container["env"]} == {"REPVGG_API_KEYS"}


@EVERY_OVERLAY
def test_volumes_and_config_maps_exist_and_their_names_hash_their_content(overlay: str, render: Render) -> None:
    documents = render(f"overlays/{overlay}")
    pod = pod_of(documents)
    made = {document["metadata"]["name"] for document in documents if document["kind"] == "ConfigMap"}
    used = {source["configMapRef"]["name"] for source in pod["containers"][0]["envFrom"]}
    used |= {volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume}
    assert used <= made
    assert all(name.count("-") == 2 for name in used), "the name has no hash of the content"
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
    assert mounted == volumes


def test_every_pod_meets_the_restricted_standard(render: Render) -> None:
    """The Pod Security Standards' level `restricted`, and some hardening beyond it."""
    for name, pod in pods(render):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] == 1000, f"{name}: the user of the images, and of Ascend's device files"
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"]


def test_the_pulled_bundle_is_the_one_that_is_served(render: Render) -> None:
    """The init container's own flags, as the command line reads them; a bundle keeps its name and version, which are
    those of the example's tag."""
    documents = render("overlays/cpu-pull")
    (init,) = pod_of(documents)["initContainers"]
    (config,) = [one for one in documents if one["metadata"]["name"].startswith("repvgg-bundle-")]
    address = config["data"]["address"]
    flags = build_parser().parse_args([arg.replace("$(BUNDLE)", address) for arg in init["args"]])
    assert (flags.source, flags.name, flags.version) == (address, None, None)
    name, version = address.rpartition("/")[2].split(":")
    assert settings_of(documents).model == f"{flags.store}/{name}/{version}"


def test_the_image_volume_is_the_address_without_its_scheme(render: Render) -> None:
    """`models/` in it is the bundle, as hub.places.images writes it."""
    documents = render("overlays/cpu-image")
    (volume,) = [volume for volume in pod_of(documents)["volumes"] if "image" in volume]
    assert volume["image"]["reference"] == "registry.example.com/models/repvgg-small-tinyimagenet:1"
    Reference.parse(volume["image"]["reference"])
    (mount,) = [
        mount for mount in pod_of(documents)["containers"][0]["volumeMounts"] if mount["name"] == volume["name"]
    ]
    assert settings_of(documents).model == f"{mount['mountPath']}/models"
    assert mount["readOnly"] is True


def test_kserve_takes_the_bundle_from_a_volume_or_from_a_registry(render: Render) -> None:
    volume, registry = (one(render(build), "InferenceService") for build in ("kserve", "kserve-oci"))
    addresses = [service["spec"]["predictor"]["model"].pop("storageUri") for service in (volume, registry)]
    assert volume == registry
    assert addresses[0].startswith("pvc://")
    scheme, _, reference = addresses[1].partition("://")
    assert scheme == "oci+native"
    Reference.parse(reference)


@EVERY_OVERLAY
def test_no_egress_but_to_pull_is_allowed_and_only_the_http_port_in(overlay: str, render: Render) -> None:
    policy = one(render(f"overlays/{overlay}"), "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    if overlay == "cpu-pull":  # its init container asks for a name and pulls
        (rule,) = policy["egress"]
        assert {port["port"] for port in rule["ports"]} == {53, 443}
    else:
        assert "egress" not in policy
    assert policy["ingress"] == [{"ports": [{"port": "http"}]}]


def pinned(overlay: str, store: Path, render: Render, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the init container's command with its paths redirected."""
    documents = render(f"overlays/{overlay}")
    (init,) = pod_of(documents)["initContainers"]
    (config,) = [one for one in documents if one["metadata"]["name"].startswith("repvgg-bundle-")]
    (folder / "bundle.sha256").write_text(config["data"]["bundle.sha256"])
    command = [word.replace("/etc/repvgg", str(folder)) for word in init["command"]]
    assert init["workingDir"] == "/models"
    return subprocess.run(command, cwd=store, capture_output=True, text=True, check=False)


def test_only_the_pinned_bundle_starts(render: Render, tmp_path: Path) -> None:
    model = Path(settings_of(render("overlays/gpu")).model).relative_to("/models")
    store = tmp_path / "store"
    shutil.copytree(ROOT / "models/store" / model, store / model)
    done = pinned("gpu", store, render, tmp_path)
    assert done.returncode == 0, f"{done.stdout}: pin the shipped bundle in k8s/overlays/gpu/bundle.sha256"
    (store / model / "manifest.json").write_text("{}")
    done = pinned("gpu", store, render, tmp_path)
    assert done.returncode == 1
    assert f"{model}/manifest.json: FAILED" in done.stdout


def test_an_overlay_without_a_pin_never_starts(render: Render, tmp_path: Path) -> None:
    model = Path(settings_of(render("overlays/ascend310")).model).relative_to("/models")
    (tmp_path / model).mkdir(parents=True)
    (tmp_path / model / "manifest.json").write_text("{}")
    done = pinned("ascend310", tmp_path, render, tmp_path)
    assert (done.returncode, done.stdout) == (1, f"{model}/manifest.json: FAILED\n")


def adapter_rules() -> dict[str, dict[str, Any]]:
    """By the metric name that the autoscaler sees."""
    rules = yaml.safe_load((K8S / "prometheus-adapter/values.yaml").read_text())["rules"]["custom"]
    return {rule.get("name", {}).get("as", rule["seriesQuery"].partition("{")[0]): rule for rule in rules}


def test_the_autoscaler_uses_metrics_that_the_adapter_gets_from_a_live_service(
    render: Render, prometheus: Prometheus
) -> None:
    scaler = one(render("overlays/cpu"), "HorizontalPodAutoscaler")["spec"]
    rules = adapter_rules()
    assert {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]} == rules.keys()
    for rule in rules.values():
        assert prometheus.query(rule["seriesQuery"]), rule
        query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
        query = query.replace("<<.LabelMatchers>>", 'namespace="repvgg",pod="repvgg-0"').replace("<<.GroupBy>>", "pod")
        (series,) = prometheus.query(query)
        assert series["metric"] == {"pod": "repvgg-0"}


def test_keda_queries_metrics_of_a_live_service_and_treats_no_answer_as_an_error(
    render: Render, prometheus: Prometheus
) -> None:
    documents = render("overlays/cpu-keda")
    scaler = one(documents, "ScaledObject")
    assert scaler["spec"]["fallback"]["replicas"] >= scaler["spec"]["minReplicaCount"]
    for trigger in scaler["spec"]["triggers"]:
        asked = trigger["metadata"]
        assert asked["ignoreNullValues"] == "false"
        assert f'namespace="{scaler["metadata"]["namespace"]}"' in asked["query"]
        (series,) = prometheus.query(asked["query"])
        assert series["metric"] == {}


def test_both_autoscalers_have_the_same_targets(render: Render) -> None:
    metrics = one(render("overlays/cpu"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    triggers = one(render("overlays/cpu-keda"), "ScaledObject")["spec"]["triggers"]
    aims = [metric["pods"]["target"]["averageValue"] for metric in metrics]
    numbers = [float(aim[:-1]) / 1000 if aim.endswith("m") else float(aim) for aim in aims]
    assert numbers == [float(trigger["metadata"]["threshold"]) for trigger in triggers]


def test_kserve_runs_the_same_container(render: Render) -> None:
    documents = render("kserve")
    (ours,) = pod_of(render("overlays/cpu"))["containers"]
    (theirs,) = one(documents, "ServingRuntime")["spec"]["containers"]
    for name in ("image", "lifecycle", "startupProbe", "readinessProbe", "livenessProbe", "resources", "volumeMounts"):
        assert theirs[name] == ours[name], name
    assert ours["securityContext"].items() <= theirs["securityContext"].items()
    predictor = one(documents, "InferenceService")["spec"]["predictor"]
    assert predictor["terminationGracePeriodSeconds"] == pod_of(render("overlays/cpu"))["terminationGracePeriodSeconds"]
    assert predictor["model"]["runtime"] == one(documents, "ServingRuntime")["metadata"]["name"]
    flags = build_parser().parse_args(theirs["args"])
    assert (int(flags.port), flags.host) == (theirs["ports"][0]["containerPort"], "0.0.0.0")
    selected = one(documents, "PodMonitor")["spec"]["selector"]["matchLabels"]
    assert selected.items() <= predictor["labels"].items()
