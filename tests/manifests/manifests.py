"""What every manifest must be: of the shape that its kind has, and naming nothing that isn't there.

`render` makes the documents of an overlay, `Shapes` knows the shape of every kind, `contradictions` compares the
documents with each other and with what the programs know. `validate` and `prove` beside this file use them.
"""
import copy
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import yaml

WORKSPACE = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", WORKSPACE / "target"))
KUBERNETES = "1.34"
WRITERS = {"order": "orders", "payment": "payments", "kitchen": "kitchen", "delivery": "deliveries"}
SERVICES = [*WRITERS, "query"]
CERTIFICATE = {"user.crt", "user.key"}
# Namespaces of others that our policies name.
NEIGHBOURS = {"kube-system", "knative-serving", "knative-eventing", "kourier-system"}
# What Strimzi's installation brings.
STRIMZI_ROLES = {
    "strimzi-cluster-operator-namespaced", "strimzi-cluster-operator-watched", "strimzi-entity-operator",
}
# Fields whose keys no schema lists: what may stand in them.
ANNOTATIONS = {
    "autoscaling.knative.dev/min-scale", "autoscaling.knative.dev/max-scale", "autoscaling.knative.dev/metric",
    "autoscaling.knative.dev/target", "serving.knative.dev/progress-deadline", "rainstorm.dev/waiting-per-worker",
    "eventing.knative.dev/broker.class", "kafka.eventing.knative.dev/external.topic",
    "kafka.eventing.knative.dev/delivery.order",
}
LABELS = {
    "rainstorm.dev/account", "app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/component", "strimzi.io/cluster",
    "networking.knative.dev/visibility", "pod-security.kubernetes.io/enforce", "pod-security.kubernetes.io/warn",
    "pod-security.kubernetes.io/audit",
}
KAFKA_CONFIG = {
    "auto.create.topics.enable", "default.replication.factor", "min.insync.replicas", "offsets.retention.minutes",
    "offsets.topic.replication.factor", "transaction.state.log.replication.factor", "transaction.state.log.min.isr",
    "retention.ms", "retention.bytes", "max.message.bytes",
}
RESOURCES = {"cpu", "memory", "storage"}
# The standard settings of OpenTelemetry, which every program knows without saying so.
OPEN_TELEMETRY = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": re.compile(r"http://collector\.rainstorm\.svc:4317"),
    "OTEL_TRACES_SAMPLER": re.compile("parentbased_traceidratio"),
    "OTEL_TRACES_SAMPLER_ARG": re.compile(r"[01]\.\d+"),
}
# Everything that every program knows without saying so.
GENERAL = {**OPEN_TELEMETRY, "LOG_FORMAT": re.compile("text|json")}
# The usual tools: at which ports they listen, and where they say how they are.
TOOLS = {
    "collector": ({"otlp-grpc": 4317, "otlp-http": 4318, "metrics": 8888, "health": 13133}, {"/"}),
    "jaeger": ({"otlp-grpc": 4317, "http": 16686, "metrics": 8888, "health": 13133}, {"/status"}),
    "prometheus": ({"metrics": 9090}, {"/-/ready", "/-/healthy"}),
    "grafana": ({"http": 3000}, {"/api/health"}),
}
# Everybody who is always there.
DEPLOYMENTS = {**TOOLS, "observer": ({"metrics": 8082}, {"/healthz/ready", "/healthz/live"})}
# Who may ask Kubernetes for what: binding and account have one name, the role is its own or another's.
ROLES = {"watch": "watch", "observer": "watch", "prometheus": "prometheus"}
# Fields whose values no schema lists: by the end of the path, numbers left out, what may stand there.
QUANTITY = re.compile(r"\d+(m|Mi|Gi)?")
VALUES = {
    "ports.protocol": {"TCP", "UDP"},
    "policyTypes": {"Ingress", "Egress"},
    "imagePullPolicy": {"IfNotPresent"},
    "restartPolicy": {"Never"},
    "seccompProfile.type": {"RuntimeDefault"},
    "roleRef.apiGroup": {"rbac.authorization.k8s.io"},
    "emptyDir.medium": {"Memory"},
    "strategy.type": {"Recreate"},
    "accessModes": {"ReadWriteOnce"},
    "spec.contentType": {"application/json"},
    "spec.data": {"{}"},
    "spec.clusterIP": {"None"},
    "requests.cpu": QUANTITY, "requests.memory": QUANTITY, "requests.storage": QUANTITY,
    "limits.cpu": QUANTITY, "limits.memory": QUANTITY, "emptyDir.sizeLimit": QUANTITY, "storage.size": QUANTITY,
    "jvmOptions.-Xms": re.compile(r"\d+[mg]"), "jvmOptions.-Xmx": re.compile(r"\d+[mg]"),
    "labels.app.kubernetes.io/part-of": {"rainstorm"},
}


def run(*command):
    """What a command prints."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=WORKSPACE)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr or done.stdout}")
    return done.stdout


def render(overlay):
    """The documents of an overlay."""
    own = TARGET / "tools/kustomize"
    kustomize = shutil.which("kustomize") or (own if own.exists() else None)
    build = [kustomize, "build"] if kustomize else ["kubectl", "kustomize"]
    return [document for document in yaml.safe_load_all(run(*build, overlay)) if document]


def given(overlay):
    """Secrets that an overlay expects to be there: keys by name."""
    kustomization = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    secrets = {}
    for folder in [overlay, *(overlay / part for part in kustomization.get("components", []))]:
        if (folder / "given.yaml").exists():
            secrets.update(yaml.safe_load((folder / "given.yaml").read_text())["secrets"])
    return {name: set(keys) for name, keys in secrets.items()}


def strict(schema):
    """The schema with unknown fields forbidden wherever the CRD lists the known ones (as the API server prunes)."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: strict(value) for name, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        schema["additionalProperties"] = False
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return schema


class Shapes:
    """The schema of every kind: Kubernetes' own, and the CRDs in a folder."""

    def __init__(self, folder):
        self.known = {}
        for file in sorted(folder.glob("*.yaml")):
            for document in yaml.safe_load_all(file.read_text()):
                if document and document.get("kind") == "CustomResourceDefinition":
                    self.learn(document["spec"])
        if not self.known:
            raise SystemExit(f"{folder}: no CustomResourceDefinition is there; name their folder in CRDS")

    def learn(self, spec):
        for version in spec["versions"]:
            schema = version.get("schema", spec.get("validation", {})).get("openAPIV3Schema")
            if schema:
                schema = strict(schema)
                schema.setdefault("properties", {}).update(
                    {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
                )
                validator = jsonschema.Draft202012Validator(schema)
                self.known[f'{spec["group"]}/{version["name"]}', spec["names"]["kind"]] = validator

    def errors(self, document):
        """What is wrong with the shape of a document."""
        kind = document.get("apiVersion"), document.get("kind")
        metadata = document.get("metadata")
        if not isinstance(metadata, dict) or not ("name" in metadata or "generateName" in metadata):
            return ["has no name"]
        unknown = set(metadata) - {"name", "generateName", "namespace", "labels", "annotations"}
        if unknown:
            return [f"metadata: unknown {sorted(unknown)}"]
        if kind in self.known:
            return [f"{error.json_path}: {error.message}" for error in self.known[kind].iter_errors(document)]
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [f"{'.'.join(map(str, error.path))}: {error.message}"]
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError, KeyError):
            return [f"nobody knows {kind[0]} {kind[1]}"]
        return []


@cache
def variables(program, *arguments):
    """The environment variables that a program says it reads."""
    return frozenset(re.findall(r"\[env:\s+(\w+)=", run(TARGET / "debug" / program, *arguments, "--help")))


@cache
def flags_of(*verbs):
    """The flags that `rainstorm` knows after these verbs."""
    return frozenset(re.findall(r"--[\w-]+", run(TARGET / "debug/rainstorm", *verbs, "--help")))


@cache
def librdkafka():
    """librdkafka's settings, from the document that comes with its source."""
    metadata = json.loads(run("cargo", "metadata", "--format-version", "1", "--locked"))
    manifest = next(package["manifest_path"] for package in metadata["packages"] if package["name"] == "rdkafka-sys")
    text = (Path(manifest).parent / "librdkafka/CONFIGURATION.md").read_text()
    return frozenset(line.split("|")[0].strip() for line in text.splitlines() if "|" in line)


@cache
def programs():
    """The programs in the image."""
    return frozenset(re.findall(r"/programs/([\w-]+)", (WORKSPACE / "Dockerfile").read_text()))


@cache
def topics():
    """Every topic, by the document that says what is on them, and everybody's dead letters."""
    channels = json.loads((WORKSPACE / "docs/asyncapi.json").read_text())["channels"]
    written = {channel["address"] for channel in channels.values()}
    return frozenset(written | {f"{service}.dead-letters" for service in SERVICES})


@cache
def event_types():
    """Every type that somebody publishes."""
    samples = WORKSPACE.glob("services/*/contract/*.v1.json")
    return frozenset(json.loads(sample.read_text())["type"] for sample in samples)


@cache
def versions():
    text = (WORKSPACE / "k8s/versions").read_text()
    return dict(line.split("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))


@cache
def compose_services():
    return yaml.safe_load((WORKSPACE / "docker-compose.yml").read_text())["services"]


@cache
def other_images():
    """Images that aren't ours, as docker-compose.yml names them."""
    return frozenset(service["image"] for service in compose_services().values() if "build" not in service)


def walk(node, path=()):
    """Every mapping in a document, with the path to it."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from walk(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, (*path, index))


class World:
    """All documents of one overlay, and what can be found in them."""

    def __init__(self, documents, expected):
        self.documents = documents
        self.errors = []
        self.secrets = dict(expected)
        self.config_maps = {}
        for document in documents:
            name = document["metadata"].get("name")
            match document["kind"]:
                case "Secret":
                    self.secrets[name] = set(document.get("stringData", {})) | set(document.get("data", {}))
                case "ConfigMap":
                    self.config_maps[name] = document.get("data", {})
                case "Kafka":
                    self.secrets[f"{name}-cluster-ca-cert"] = {"ca.crt"}
                case "KafkaUser" if document["spec"]["authentication"]["type"] == "tls":
                    self.secrets[name] = CERTIFICATE
        self.policies_of_others = any(document["kind"] == "Kafka" for document in documents)

    def of(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def names(self, *kinds, api=""):
        return {it["metadata"].get("name") for it in self.of(*kinds) if it["apiVersion"].startswith(api)}

    def wrong(self, document, what):
        metadata = document["metadata"]
        self.errors.append(f'{document["kind"]}/{metadata.get("name", metadata.get("generateName"))}: {what}')

    def expect(self, document, holds, what):
        if not holds:
            self.wrong(document, what)

    def check(self):
        """Everything that contradicts anything else."""
        for document in self.documents:
            self.check_words(document)
            self.check_references(document)
            for pod in pods(document):
                self.check_pod(document, pod)
        services = [it for it in self.of("Service") if it["apiVersion"].startswith("serving")]
        users = {it["metadata"]["name"]: it for it in self.of("KafkaUser")}
        for service in services:
            self.check_service(service)
        for source in self.of("KafkaSource"):
            self.check_source(source, users)
        for source in self.of("PingSource"):
            self.check_sink(source, source["spec"]["sink"])
            every = re.fullmatch(r"\*/(\d+) \* \* \* \*", source["spec"]["schedule"])
            # Knative's stable window and grace are a minute and a half.
            self.expect(source, every and int(every[1]) >= 3, "ticks so often that nobody sleeps")
        for sink in self.of("KafkaSink"):
            self.check_kafka_sink(sink, users)
        for broker in self.of("Broker"):
            self.check_broker(broker, users)
        for trigger in self.of("Trigger"):
            self.check_trigger(trigger)
        self.check_kafka(users)
        for policy in self.of("NetworkPolicy"):
            self.check_policy(policy)
        for binding in self.of("RoleBinding"):
            subjects = [(it["kind"], it["name"], it.get("namespace")) for it in binding["subjects"]]
            name = binding["metadata"]["name"]
            if name in ROLES:
                role = binding["roleRef"]["kind"], binding["roleRef"]["name"]
                self.expect(binding, role == ("Role", ROLES[name]) and role[1] in self.names("Role"), "gives what?")
                self.expect(binding, subjects == [("ServiceAccount", name, "rainstorm")], f"is for {subjects}")
                continue
            self.expect(binding, binding["roleRef"]["name"] in STRIMZI_ROLES, "gives a role that Strimzi doesn't bring")
            ours = [("ServiceAccount", "strimzi-cluster-operator", "strimzi")]
            self.expect(binding, subjects == ours, f"is for {subjects}")
            self.expect(binding, binding["roleRef"]["kind"] == "ClusterRole", "gives no cluster role")
        for role in self.of("Role"):
            rules = [(it["apiGroups"], it["resources"], it["verbs"]) for it in role["rules"]]
            pods_seen, wanted_seen = ([""], ["pods"], ["list", "watch"]), (["apps"], ["deployments"], ["list", "watch"])
            seen = {"watch": [pods_seen, wanted_seen], "prometheus": [pods_seen]}
            self.expect(role, rules == seen.get(role["metadata"]["name"]), f"allows {rules}")
        for job in self.of("Job"):
            self.check_job(job)
        for deployment in self.of("Deployment"):
            self.check_deployment(deployment)
            if deployment["metadata"]["name"] == "observer":
                self.check_observer(deployment)
            else:
                self.check_tool(deployment)
        tools = [it for it in self.of("Deployment") if it["metadata"]["name"] in TOOLS]
        if tools:
            self.check_telemetry(tools[0])
        if services:
            self.check_completeness(services)
        return self.errors

    def check_words(self, document):
        """Words that no schema lists."""
        kind, namespace = document["kind"], document["metadata"].get("namespace")
        if kind == "Namespace":
            self.expect(document, document["metadata"]["name"] == "rainstorm", "is another namespace")
        else:
            self.expect(document, namespace == "rainstorm", f"is in the namespace {namespace}")
        for path, node in walk(document):
            match path[-1:]:
                case ("annotations",):
                    unknown = set(node) - ANNOTATIONS
                case ("labels",):
                    unknown = set(node) - LABELS
                case ("requests",) | ("limits",):
                    unknown = set(node) - RESOURCES
                case ("config",) if kind in ("Kafka", "KafkaTopic"):
                    unknown = set(node) - KAFKA_CONFIG
                case _:
                    unknown = set()
            for place, value in words(node, path):
                for end, allowed in VALUES.items():
                    if place.endswith(f".{end}"):
                        fits = allowed.fullmatch(value) if isinstance(allowed, re.Pattern) else value in allowed
                        self.expect(document, fits, f"{place} is {value}")
            self.expect(document, not unknown, f"{'.'.join(map(str, path))} has the unknown {sorted(unknown)}")

    def secret(self, document, name, *keys):
        if name not in self.secrets:
            self.wrong(document, f"there is no secret {name}")
        elif missing := set(keys) - self.secrets[name]:
            self.wrong(document, f"the secret {name} has no {sorted(missing)}")

    def check_references(self, document):
        for path, node in walk(document):
            match path[-1:]:
                case ("secretKeyRef",):
                    self.secret(document, node["name"], node["key"])
                case ("configMapRef",):
                    there = node["name"] == "telemetry" if node.get("optional") else node["name"] in self.config_maps
                    self.expect(document, there, f"there is no ConfigMap {node['name']}")
            if "serviceAccountName" in node:
                account = node["serviceAccountName"]
                self.expect(document, account in {"default", *self.names("ServiceAccount")}, f"there is no account {account}")

    def check_pod(self, document, pod):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        claims = {it["metadata"]["name"] for it in document["spec"].get("volumeClaimTemplates", [])}
        mounted = {}
        for container in pod["containers"]:
            mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
            mounted.update(mounts)
            unknown = set(mounts) - set(volumes) - claims
            self.expect(document, not unknown, f"mounts {sorted(unknown)}, which are no volumes")
            self.check_container(document, container, {mounts[it]: volumes[it] for it in mounts if it in volumes})
        idle = (set(volumes) | claims) - set(mounted)
        self.expect(document, not idle, f"nobody mounts {sorted(idle)}")
        for volume in volumes.values():
            if "secret" in volume:
                self.secret(document, volume["secret"]["secretName"])
            if "configMap" in volume:
                name = volume["configMap"]["name"]
                self.expect(document, name in self.config_maps, f"there is no ConfigMap {name}")

    def check_container(self, document, container, mounts):
        image = container["image"]
        name, _, tag = image.rpartition(":")
        if name.endswith("/rainstorm"):
            self.expect(document, tag == versions()["RAINSTORM"], f"the image {image} is of another version")
            self.check_program(document, container, mounts)
            mine = {"dev.local/rainstorm", "registry.example.com/rainstorm"}
            self.expect(document, name in mine, f"who has the image {image}?")
        else:
            self.expect(document, image in other_images(), f"docker-compose.yml has no image {image}")
            if document["kind"] == "StatefulSet":
                self.check_postgres(document, container, mounts)
        security = container.get("securityContext", {})
        self.expect(document, security.get("readOnlyRootFilesystem") is True, "may write to its own file system")
        self.expect(document, security.get("allowPrivilegeEscalation") is False, "may become more than it is")
        self.expect(document, security.get("capabilities") == {"drop": ["ALL"]}, "keeps capabilities")
        for resources in ("requests", "limits"):
            self.expect(document, "memory" in container["resources"][resources], f"has no memory {resources}")
        ports = {port["name"] for port in container.get("ports", [])}
        known = DEPLOYMENTS[document["metadata"]["name"]][0] if document["kind"] == "Deployment" else {"postgres"}
        self.expect(document, ports <= set(known), f"ports {sorted(ports)}")

    def check_program(self, document, container, mounts):
        program, *arguments = [*container["command"], *container.get("args", [])]
        self.expect(document, program in programs(), f"the image has no program {program}")
        if program not in programs():
            return
        verbs = [it for it in arguments if not it.startswith(("-", "http"))]
        try:
            known = variables(program, *verbs)
        except SystemExit as refused:
            self.wrong(document, refused)
            return
        settings = {it["name"]: it.get("value") for it in container.get("env", [])}
        for reference in container.get("envFrom", []):
            settings.update(self.config_maps.get(reference.get("configMapRef", {}).get("name"), {}))
        spent = "".join(value or "" for value in settings.values())
        for name, value in settings.items():
            if name in known or f"$({name})" in spent:
                continue
            if name in GENERAL:
                self.expect(document, GENERAL[name].fullmatch(value), f"{name} is {value}")
                continue
            setting = name.removeprefix("KAFKA_").lower().replace("_", ".")
            passed_on = setting.startswith(("security.protocol", "ssl.", "sasl.")) and setting in librdkafka()
            self.expect(document, passed_on, f"{program} knows no setting {name}")
            if setting.endswith(".location"):
                folder, _, key = value.rpartition("/")
                volume = mounts.get(folder, {}).get("secret")
                self.expect(document, volume is not None, f"{name}: nothing is mounted at {folder}")
                if volume:
                    self.secret(document, volume["secretName"], key)
        if "KAFKA_BROKERS" in settings:
            self.check_brokers(document, settings["KAFKA_BROKERS"], settings.get("KAFKA_SECURITY_PROTOCOL"))
        for probe, path in (("readinessProbe", "/healthz/ready"), ("livenessProbe", "/healthz/live")):
            if probe in container:
                self.expect(document, container[probe]["httpGet"]["path"] == path, f"{probe}: nobody answers there")

    def check_postgres(self, document, container, mounts):
        labels = {"app.kubernetes.io/name": "postgres", "app.kubernetes.io/part-of": "rainstorm"}
        selected = {"app.kubernetes.io/name": "postgres"}
        service = next(it for it in self.of("Service") if it["metadata"]["name"] == "postgres")
        spec = document["spec"]
        for it in (document["metadata"], service["metadata"], spec["template"]["metadata"]):
            self.expect(document, it["labels"] == labels and it.get("name", "postgres") == "postgres", "is called what?")
        self.expect(document, spec["selector"]["matchLabels"] == selected == service["spec"]["selector"], "selects what?")
        self.expect(document, spec["serviceName"] == "postgres", "has no service")
        flags = container["args"]
        self.expect(document, set(flags[::2]) == {"-c"}, "has other flags")
        settings = {it.split("=")[0] for it in flags[1::2]}
        self.expect(document, settings == {"max_connections", "shared_buffers"}, f"is told {sorted(settings)}")
        sizes = all(re.fullmatch(r"\w+=\d+(MB)?", it) for it in flags[1::2])
        self.expect(document, sizes, "is told what it won't understand")
        passwords = next((it["secret"]["secretName"] for it in mounts.values() if "secret" in it), None)
        self.secret(document, passwords, "postgres", *SERVICES)
        expected = {"POSTGRES_USER", "POSTGRES_PASSWORD_FILE", "PGDATA"}
        names = {it["name"] for it in container["env"]}
        self.expect(document, names == expected, f"the image wants {sorted(expected)} and gets {sorted(names)}")
        values = {it["name"]: it["value"] for it in container["env"]}
        self.expect(document, values.get("POSTGRES_PASSWORD_FILE") == "/run/passwords/postgres", "where is the password?")
        self.expect(document, values.get("POSTGRES_USER") == "postgres", "the probes ask for the user postgres")
        places = {*mounts, *(it["mountPath"] for it in container["volumeMounts"])}
        needed = {
            "/run/passwords", "/docker-entrypoint-initdb.d", "/var/run/postgresql", "/tmp", "/dev/shm",
            "/var/lib/postgresql/data",
        }
        self.expect(document, places == needed, f"the image needs {sorted(needed)} and has {sorted(places)}")
        self.expect(document, values.get("PGDATA") == "/var/lib/postgresql/data/pgdata", "keeps its data nowhere")
        scripts = [self.config_maps.get(it["configMap"]["name"], {}) for it in mounts.values() if "configMap" in it]
        self.expect(document, [set(it) for it in scripts] == [{"databases.sh"}], "makes no databases")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            command = ["pg_isready", "--username=postgres", "--host=127.0.0.1"]
            self.expect(document, container[probe]["exec"]["command"] == command, f"{probe} asks something else")
        for secret in self.of("Secret"):
            name, texts = secret["metadata"]["name"], secret.get("stringData", {})
            if "DATABASE_URL" in texts:
                url, service = urlsplit(texts["DATABASE_URL"]), name.removesuffix("-database")
                stored = next(it for it in self.of("Secret") if it["metadata"]["name"] == passwords)["stringData"]
                told = url.scheme, url.username, url.password, url.hostname, url.port, url.path
                right = "postgres", service, stored.get(service), "postgres.rainstorm.svc", 5432, f"/{service}"
                self.expect(secret, told == right, f"{told}, and the database is {right}")
                self.expect(secret, "postgres" in self.names("Service", api="v1"), "there is no service postgres")

    def found_at(self, name):
        """The service by which a pod that is always there is found."""
        return next(it for it in self.of("Service") if (it["apiVersion"], it["metadata"]["name"]) == ("v1", name))

    def check_deployment(self, document):
        """One pod that is always there, and the service by which it is found."""
        name, spec = document["metadata"]["name"], document["spec"]
        known, paths = DEPLOYMENTS[name]
        pod, container = spec["template"]["spec"], spec["template"]["spec"]["containers"][0]
        selected = {"app.kubernetes.io/name": name}
        labels = {**selected, "app.kubernetes.io/part-of": "rainstorm"}
        service = self.found_at(name)
        for it in (document["metadata"], service["metadata"]):
            self.expect(document, it["labels"] == labels, f"is labelled {it['labels']}")
        of_pod = spec["template"]["metadata"]["labels"]
        component = {"app.kubernetes.io/component": name} if name == "observer" else {}
        self.expect(document, of_pod == {**labels, **component}, f"its pod is labelled {of_pod}")
        self.expect(document, spec["selector"]["matchLabels"] == selected == service["spec"]["selector"], "selects what?")
        self.expect(document, spec["replicas"] == 1, "there is more than one, and nobody deals out")
        self.expect(document, pod["serviceAccountName"] == name, f"runs as {pod['serviceAccountName']}")
        token = pod["automountServiceAccountToken"]
        self.expect(document, token is (name in ROLES), "has a token it doesn't need, or lacks one")
        self.expect(document, pod["securityContext"]["runAsNonRoot"] is True, "may be root")
        ports = {it["name"]: it["containerPort"] for it in container["ports"]}
        self.expect(document, ports == known, f"listens at {ports}")
        for port in service["spec"]["ports"]:
            self.expect(document, ports.get(port["targetPort"]) == port["port"], f"nobody listens at {port}")
            self.expect(document, port["name"] in {"http", "otlp-grpc", "otlp-http"}, f"speaks {port['name']}")
        for probe in ("readinessProbe", "livenessProbe", *(["startupProbe"] if name in TOOLS else [])):
            asked = container[probe]["httpGet"]
            there = asked["path"] in paths and asked["port"] in ports
            self.expect(document, there, f"{probe}: nobody answers at {asked}")

    def check_observer(self, observer):
        """It runs as docker-compose.yml runs it, only that Kubernetes tells it who is awake."""
        compose = compose_services()["observer"]
        pod = observer["spec"]["template"]["spec"]
        container = pod["containers"][0]
        self.expect(observer, container["command"] == compose["command"], "is called in another way in Compose")
        told = {it["name"]: it["value"] for it in container["env"]}
        right = {"PORT": compose["environment"]["PORT"], "CLUSTER": "true", "LOG_FORMAT": "json"}
        self.expect(observer, told == right, f"is told {told}")
        listens = [str(it["containerPort"]) for it in container["ports"]]
        self.expect(observer, listens == [told.get("PORT")], f"listens at {told.get('PORT')}, and {listens} is open")
        self.expect(observer, container["envFrom"] == [{"configMapRef": {"name": "event-log"}}], "where is the log?")
        users = [it["secret"]["secretName"] for it in pod["volumes"] if it["name"] == "kafka-user"]
        self.expect(observer, users == ["observer"], f"is {users} to Kafka")
        self.expect(observer, "observer" in self.names("RoleBinding"), "may not ask Kubernetes")
        for kafka in self.of("Kafka"):
            labels = {"strimzi.io/cluster": kafka["metadata"]["name"], "strimzi.io/kind": "Kafka"}
            reached = self.may(observer["spec"]["template"]["metadata"]["labels"], "egress", "to", labels, 9093)
            self.expect(observer, reached, "no policy lets it reach the log")
        (port,) = (it["port"] for it in self.found_at("observer")["spec"]["ports"])
        for who in ("query-api", *({"prometheus"} & self.names("Deployment"))):
            self.expect(observer, self.may_reach(who, "observer", port), f"no policy lets {who} ask it")

    def may_reach(self, asking, asked, port):
        """Whether the policies let one's pods speak to the other's at a port: both the one's and the other's must."""
        found = [it["spec"]["template"]["metadata"]["labels"] for it in self.of("Service", "Deployment")
                 if "template" in it["spec"]]
        labels = {it["app.kubernetes.io/name"]: it for it in found}
        return self.may(labels[asking], "egress", "to", labels[asked], port) and self.may(
            labels[asked], "ingress", "from", labels[asking], port
        )

    def may(self, own, direction, peers, other, port):
        """Whether a policy for pods labelled `own` has a rule that names those labelled `other` and the port."""
        return any(
            selects(policy["spec"]["podSelector"], own)
            and port in (it["port"] for it in rule["ports"])
            and any("podSelector" in it and selects(it["podSelector"], other) for it in rule.get(peers, []))
            for policy in self.of("NetworkPolicy")
            for rule in policy["spec"].get(direction, [])
        )

    def check_tool(self, tool):
        """One of the usual tools: it runs as docker-compose.yml runs it, and reads the same files."""
        name, spec = tool["metadata"]["name"], tool["spec"]
        compose = compose_services()[name]
        pod, container = spec["template"]["spec"], spec["template"]["spec"]["containers"][0]
        self.expect(tool, container["image"] == compose["image"], f"{compose['image']} runs in Compose")
        self.expect(tool, container.get("args", []) == compose.get("command", []), "is called in another way in Compose")
        told = {it["name"]: it["value"] for it in container.get("env", [])}
        self.expect(tool, told == compose.get("environment", {}), "is told something else in Compose")
        self.check_files(tool, pod, container, compose)

    def check_files(self, tool, pod, container, compose):
        """What a tool finds in its file system is what it finds there in Compose."""
        volumes = {it["name"]: it for it in pod["volumes"]}
        mounted = {it["mountPath"]: volumes[it["name"]] for it in container["volumeMounts"]}
        read, written = {}, set(compose.get("tmpfs", []))
        for volume in compose["volumes"]:
            source, target = volume.split(":")[:2]
            if not source.startswith("."):
                written.add(target)
                continue
            # Whom Prometheus asks is the one thing that differs.
            source = WORKSPACE / source.replace("prometheus/compose.yaml", "prometheus/cluster.yaml")
            files = source.iterdir() if source.is_dir() else [source]
            folder = target if source.is_dir() else target.rpartition("/")[0]
            for file in files:
                name = file.name if source.is_dir() else target.rpartition("/")[2]
                read.setdefault(folder, {})[name] = file.read_text()
        found = {path: self.config_maps[it["configMap"]["name"]] for path, it in mounted.items() if "configMap" in it}
        self.expect(tool, found == read, "reads other files than in Compose")
        room = {path for path, it in mounted.items() if "emptyDir" in it}
        self.expect(tool, room == written, f"may write to {sorted(room)}, and in Compose to {sorted(written)}")

    def check_telemetry(self, tool):
        """All of the tools are there, and every service tells the collector."""
        self.expect(tool, self.names("Deployment") == set(DEPLOYMENTS), "some of the tools are missing")
        told = self.config_maps.get("telemetry", {})
        self.expect(tool, set(told) == set(OPEN_TELEMETRY), f"the services are told {told}")
        for service in (it for it in self.of("Service") if it["apiVersion"].startswith("serving")):
            sources = service["spec"]["template"]["spec"]["containers"][0]["envFrom"]
            names = [it["configMapRef"]["name"] for it in sources]
            self.expect(service, names.count("telemetry") == 1, f"is told {names}")

    def check_brokers(self, document, brokers, protocol):
        """An address of the log must be one of its listeners, spoken to as it wants."""
        kafka = self.of("Kafka")
        if not kafka:
            expected = self.config_maps.get("event-log", {}).get("KAFKA_BROKERS")
            self.expect(document, brokers == expected, f"{brokers} is not the log, which is at {expected}")
            return
        host, _, port = brokers.rpartition(":")
        name = kafka[0]["metadata"]["name"]
        self.expect(document, host == f"{name}-kafka-bootstrap.rainstorm.svc", f"nobody is called {host}")
        spoken = {}
        for it in kafka[0]["spec"]["kafka"]["listeners"]:
            scram = it["authentication"]["type"] == "scram-sha-512"
            spoken[str(it["port"])] = ("SASL_" if scram else "") + ("SSL" if it["tls"] else "PLAINTEXT")
        told = spoken.get(port)
        # KafkaSinks in production are told by a secret that isn't here.
        self.expect(document, told is not None and protocol in (None, told), f"{protocol} at {brokers}, which is {told}")

    def check_service(self, service):
        name, template = service["metadata"]["name"], service["spec"]["template"]
        annotations, labels = template["metadata"]["annotations"], template["metadata"]["labels"]
        least = annotations.get("autoscaling.knative.dev/min-scale")
        most = annotations.get("autoscaling.knative.dev/max-scale", "")
        self.expect(service, least == "0", "never sleeps")
        self.expect(service, most.isdigit() and 0 < int(most) <= 12, "has no bound that makes sense")
        self.expect(service, annotations.get("autoscaling.knative.dev/metric") == "concurrency", "scales by what?")
        target = annotations.get("autoscaling.knative.dev/target", "")
        limit = template["spec"].get("containerConcurrency", 0)
        self.expect(service, target.isdigit() and 0 < int(target) < limit, "target and limit contradict each other")
        self.expect(service, annotations.get("serving.knative.dev/progress-deadline") == "1200s", "gives up too early")
        hears = name in {it["spec"]["sink"]["ref"]["name"] for it in self.of("KafkaSource")}
        waiting = annotations.get("rainstorm.dev/waiting-per-worker", "")
        triggered = name in {it["spec"]["subscriber"]["ref"]["name"] for it in self.of("Trigger")}
        self.expect(service, waiting.isdigit() == (hears or triggered), "how much may wait for a worker?")
        expected = {
            "app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "rainstorm",
            "app.kubernetes.io/component": "service",
        }
        self.expect(service, labels == expected, f"its pods are labelled {labels}")
        of_service = {k: v for k, v in expected.items() if not k.endswith("component")}
        if name in ("payment", "query"):
            of_service["networking.knative.dev/visibility"] = "cluster-local"
        self.expect(service, service["metadata"]["labels"] == of_service, f"it is labelled {service['metadata']['labels']}")
        spec, owner = template["spec"], name.removesuffix("-api")
        container = spec["containers"][0]
        self.expect(service, container["command"] == [f"{owner}-service"], f"runs {container['command']}")
        self.expect(service, spec["serviceAccountName"] == owner, f"runs as {spec['serviceAccountName']}")
        urls = [it["valueFrom"]["secretKeyRef"]["name"] for it in container["env"] if it["name"] == "DATABASE_URL"]
        self.expect(service, urls == [f"{owner}-database"], f"uses the database of {urls}")
        users = [it["secret"]["secretName"] for it in spec["volumes"] if it["name"] == "kafka-user"]
        self.expect(service, users == [owner], f"is {users} to Kafka")
        told = {it["name"]: it.get("value") for it in container["env"]}
        self.expect(service, told.get("LOG_FORMAT") == "json", f"logs {told.get('LOG_FORMAT')}")
        if name == "query-api":
            self.check_page(service, told)

    def check_page(self, service, told):
        """The live page is shown what the observer sees, and links to traces where Compose does."""
        (port,) = (it["port"] for it in self.found_at("observer")["spec"]["ports"])
        observer = told.get("OBSERVER_URL")
        self.expect(service, observer == f"http://observer.rainstorm.svc:{port}", f"nobody observes at {observer}")
        # A browser's own machine, by `kubectl port-forward` or Compose.
        traces = {None, compose_services()["query"]["environment"]["TRACES_URL"]}
        self.expect(service, told.get("TRACES_URL") in traces, f"nobody shows traces at {told.get('TRACES_URL')}")
        self.expect(service, "OPERATOR_URL" not in told, "lets people operate, and nobody could")

    def check_job(self, job):
        """What k8s/run makes: it speaks to services that are there, in words that the program knows."""
        template = job["spec"]["template"]
        account = template["spec"]["serviceAccountName"]
        labels = {
            "app.kubernetes.io/part-of": "rainstorm", "app.kubernetes.io/component": "tool",
            "rainstorm.dev/account": account,
        }
        token = template["spec"]["automountServiceAccountToken"]
        self.expect(job, token is (account == "watch"), "has a token it doesn't need, or lacks one")
        self.expect(job, template["metadata"]["labels"] == labels, "the network policies don't know it")
        container = template["spec"]["containers"][0]
        verbs = [it for it in container["args"] if not it.startswith(("-", "http"))]
        try:
            flags = flags_of(*verbs)
        except SystemExit:
            return  # It is no command, as was said of its settings already.
        for argument in container["args"]:
            if argument.startswith("http"):
                url = urlsplit(argument)
                name, _, rest = url.netloc.partition(".")
                there = name in self.names("Service", api="serving") and rest == "rainstorm.svc.cluster.local"
                self.expect(job, there and (url.scheme, url.path) == ("http", ""), f"nobody is at {argument}")
            elif argument.startswith("-"):
                self.expect(job, argument in flags, f"rainstorm {' '.join(verbs)} has no {argument}")
        for it in container.get("env", []):
            if it["name"] == "STORES":
                stores = [f"{service}=$(URL_OF_{service})" for service in SERVICES]
                self.expect(job, it["value"].split(",") == stores, f"has the stores {it['value']}")

    def check_sink(self, document, sink):
        reference = sink["ref"]
        known = {"Service": self.names("Service", api="serving"), "KafkaSink": self.names("KafkaSink")}
        there = reference["name"] in known.get(reference["kind"], ())
        self.expect(document, there, f"there is no {reference['kind']} {reference['name']}")
        if reference["kind"] == "Service":
            self.expect(document, sink.get("uri") == "/events", "the door is at /events")
            self.expect(document, reference["apiVersion"] == "serving.knative.dev/v1", "no Knative Service")
        else:
            self.expect(document, reference["apiVersion"] == "eventing.knative.dev/v1alpha1", "no KafkaSink")

    def check_delivery(self, document, delivery):
        """The retries outlast an outage of an hour."""
        pause = float(re.fullmatch(r"PT([\d.]+)S", delivery["backoffDelay"])[1])
        self.expect(document, delivery["backoffPolicy"] == "exponential", "retries in a hurry")
        self.expect(document, pause * (2 ** delivery["retry"] - 1) > 3600, "gives up within the hour")

    def check_source(self, source, users):
        spec, name = source["spec"], source["metadata"]["name"]
        self.check_sink(source, spec["sink"])
        self.check_delivery(source, spec["delivery"])
        unknown = set(spec["topics"]) - topics()
        self.expect(source, not unknown, f"there are no topics {sorted(unknown)}")
        self.expect(source, spec["consumerGroup"] == f"rainstorm-{name}", "has another's group")
        self.expect(source, spec.get("initialOffset") == "earliest", "misses what was before it")
        self.expect(source, spec.get("ordering") == "ordered", "tells an order's events in any order")
        of_letters = name.endswith("-dead-letters")
        service = name.removesuffix("-dead-letters")
        self.expect(source, spec["sink"]["ref"]["name"] == service, f"tells {spec['sink']['ref']['name']}")
        if of_letters:
            self.expect(source, spec["topics"] == [f"{service}.dead-letters"], "hears somebody else's letters")
            self.expect(source, "deadLetterSink" not in spec["delivery"], "would send its letters round and round")
        else:
            sink = spec["delivery"]["deadLetterSink"]
            self.check_sink(source, sink)
            self.expect(source, sink["ref"]["name"] == f"{service}-dead-letters", "sends its letters to another")
        tls = spec["net"]["tls"]
        references = {part: tls[part]["secretKeyRef"] for part in ("cert", "key", "caCert")}
        told = {part: (it["name"], it["key"]) for part, it in references.items()}
        user = f"{service}-source"
        right = {
            "cert": (user, "user.crt"), "key": (user, "user.key"), "caCert": ("rainstorm-cluster-ca-cert", "ca.crt"),
        }
        self.expect(source, told == right and tls["enable"] is True, f"shows {told}")
        for brokers in spec["bootstrapServers"]:
            self.check_brokers(source, brokers, "SSL")
        if users:
            rights = self.rights(users.get(user))
            for topic in spec["topics"]:
                self.expect(source, rights.get(("topic", topic)) == {"Read"}, f"may not read {topic}")
            group = rights.get(("group", spec["consumerGroup"]))
            self.expect(source, group == {"Delete", "Read"}, f"may not be in {spec['consumerGroup']}")

    def check_broker(self, broker, users):
        annotations, config = broker["metadata"]["annotations"], broker["spec"]["config"]
        topic = annotations.get("kafka.eventing.knative.dev/external.topic")
        self.expect(broker, topic == broker["metadata"]["name"] and topic in topics(), f"hands out {topic}")
        self.expect(broker, annotations.get("eventing.knative.dev/broker.class") == "Kafka", "is no Kafka Broker")
        place = config["apiVersion"], config["kind"], config.get("namespace")
        told = self.config_maps.get(config["name"], {})
        self.expect(broker, place == ("v1", "ConfigMap", "rainstorm") and told, "is told nothing")
        known = {
            "bootstrap.servers", "auth.secret.ref.name", "default.topic.partitions", "default.topic.replication.factor",
        }
        numbers = told.get("default.topic.partitions", "") + told.get("default.topic.replication.factor", "")
        self.expect(broker, set(told) == known and numbers.isdigit(), f"is told {told}")
        secret = told["auth.secret.ref.name"]
        self.secret(broker, secret, "protocol", "sasl.mechanism", "user", "password")
        texts = next(it["stringData"] for it in self.of("Secret") if it["metadata"]["name"] == secret)
        self.check_brokers(broker, told["bootstrap.servers"], texts["protocol"])
        self.expect(broker, texts["sasl.mechanism"] == "SCRAM-SHA-512", "can't log in")
        rights = self.rights(users.get(texts["user"]))
        self.expect(broker, rights.get(("topic", topic)) == {"Read"}, f"may not read {topic}")
        groups = rights.get(("group", "knative-trigger-rainstorm-"))
        self.expect(broker, groups == {"Delete", "Read"}, "may be in no group")

    def check_trigger(self, trigger):
        spec = trigger["spec"]
        self.check_sink(trigger, spec["subscriber"])
        self.check_delivery(trigger, spec["delivery"])
        sink = spec["delivery"]["deadLetterSink"]
        self.check_sink(trigger, sink)
        service = spec["subscriber"]["ref"]["name"]
        self.expect(trigger, sink["ref"]["name"] == f"{service}-dead-letters", "sends its letters to another")
        self.expect(trigger, spec["broker"] in self.names("Broker"), f"there is no broker {spec['broker']}")
        self.expect(trigger, trigger["metadata"]["name"] == f"{service}-{spec['broker']}", "is called something else")
        needed = {"broker", "subscriber", "delivery"} | ({"filters"} if service != "query" else set())
        self.expect(trigger, set(spec) == needed, f"says {sorted(spec)}")
        order = trigger["metadata"]["annotations"].get("kafka.eventing.knative.dev/delivery.order")
        self.expect(trigger, order == "ordered", "tells an order's events in any order")
        for one in (it for several in spec.get("filters", []) for it in several["any"]):
            self.expect(trigger, one["exact"]["type"] in event_types(), f"nobody publishes {one['exact']['type']}")

    def check_kafka_sink(self, sink, users):
        spec, name = sink["spec"], sink["metadata"]["name"]
        service = name.removesuffix("-dead-letters")
        self.expect(sink, spec["topic"] == f"{service}.dead-letters" and spec["topic"] in topics(), "is for no topic")
        self.expect(sink, spec.get("contentMode") == "binary", "writes what nobody reads")
        secret = spec["auth"]["secret"]["ref"]["name"]
        self.secret(sink, secret, "protocol")
        texts = next((it["stringData"] for it in self.of("Secret") if it["metadata"]["name"] == secret), {})
        for brokers in spec["bootstrapServers"]:
            self.check_brokers(sink, brokers, texts.get("protocol"))
        if texts:
            wanted = {"protocol", "sasl.mechanism", "user", "password"}
            self.expect(sink, set(texts) == wanted and texts["sasl.mechanism"] == "SCRAM-SHA-512", "can't log in")
        if users:
            user = users.get(texts.get("user", "dead-letter-writer"))
            rights = self.rights(user)
            self.expect(sink, rights.get(("topic", spec["topic"])) == {"Write"}, f"may not write {spec['topic']}")
            kind = user and user["spec"]["authentication"]
            self.expect(sink, kind and kind["type"] == "scram-sha-512", "its user has no password")

    @staticmethod
    def rights(user):
        """(kind, name) to operations."""
        acls = user["spec"]["authorization"]["acls"] if user else []
        return {(it["resource"]["type"], it["resource"]["name"]): set(it["operations"]) for it in acls}

    def check_kafka(self, users):
        kafka = self.of("Kafka")
        if not kafka:
            return
        name = kafka[0]["metadata"]["name"]
        for it in self.of("KafkaNodePool", "KafkaTopic", "KafkaUser"):
            self.expect(it, it["metadata"].get("labels") == {"strimzi.io/cluster": name}, "belongs to no cluster")
        listeners = {it["name"]: it for it in kafka[0]["spec"]["kafka"]["listeners"]}
        self.expect(kafka[0], set(listeners) == {"tls", "sasl"}, "has other listeners")
        self.expect(kafka[0], len(kafka) == 1 and kafka[0]["spec"]["kafka"]["authorization"]["type"] == "simple", "lets anybody in")
        self.expect(kafka[0], self.names("KafkaTopic") == topics(), "topics are missing, or too many")
        roles = {role for it in self.of("KafkaNodePool") for role in it["spec"]["roles"]}
        self.expect(kafka[0], roles == {"controller", "broker"}, "has no controller, or no broker")
        read, write = {"Read"}, {"Write"}
        reader = {("group", "rainstorm-reader"): {"Describe"}}
        expected = {
            "audit": {**{("topic", it): read for it in topics()}, **reader},
            "rebuild": {**{("topic", it): read for it in topics()}, **reader},
            "watch": {**{("topic", it): read for it in topics()}, ("group", "rainstorm-"): {"Describe"}},
            "observer": {**{("topic", it): read for it in topics()}, ("group", "rainstorm-"): {"Describe"}},
            "lag": {**{("topic", it): {"Describe"} for it in topics()}, ("group", "rainstorm-"): {"Describe"}},
            "dead-letters": {**{("topic", f"{it}.dead-letters"): read | write for it in SERVICES}, **reader},
            "dead-letter-writer": {("topic", f"{it}.dead-letters"): write for it in SERVICES},
        }
        for service in SERVICES:
            own = [WRITERS[service]] if service in WRITERS else []
            expected[service] = {("topic", it): write for it in [*own, f"{service}.dead-letters"]}
            heard = [it for source in self.of("KafkaSource") for it in source["spec"]["topics"]
                     if source["metadata"]["name"].removesuffix("-dead-letters") == service]
            triggered = [it["spec"]["broker"] for it in self.of("Trigger")
                         if it["spec"]["subscriber"]["ref"]["name"] == service]
            groups = [f"rainstorm-{service}", f"rainstorm-{service}-dead-letters"]
            if not triggered:
                expected[f"{service}-source"] = {
                    **{("topic", it): read for it in heard}, **{("group", it): read | {"Delete"} for it in groups},
                }
        # What the service shows at /live it reads.
        expected["query"] |= {**{("topic", it): read for it in WRITERS.values()}, **reader}
        for user in users.values():
            name = user["metadata"]["name"]
            self.expect(user, name not in self.names("Secret"), "Strimzi writes a secret under this name, too")
            if name in expected:
                self.expect(user, self.rights(user) == expected[name], "may do more or less than it has to")
            patterns = {it["resource"]["patternType"] for it in user["spec"]["authorization"]["acls"]}
            several = name in ("lag", "watch", "observer", "broker-reader")
            self.expect(user, patterns == ({"literal", "prefix"} if several else {"literal"}), "may do too much")
        expected |= {it["metadata"]["name"]: {} for it in users.values()} if self.of("Broker") else {}
        self.expect(kafka[0], set(expected) == set(users), f"has users {sorted(users)}")

    def check_policy(self, policy):
        labelled = [it["spec"]["template"]["metadata"]["labels"] for it in self.of("Service", "StatefulSet", "Deployment")
                    if "template" in it["spec"]]
        labelled += [{"app.kubernetes.io/component": "tool"}, {"rainstorm.dev/account": "watch"}]
        if self.of("Kafka"):
            labelled.append({"strimzi.io/cluster": self.of("Kafka")[0]["metadata"]["name"], "strimzi.io/kind": "Kafka"})
        for path, node in walk(policy):
            if path[-1:] == ("podSelector",):
                wanted = [(key, [value]) for key, value in node.get("matchLabels", {}).items()]
                wanted += [(it["key"], it["values"]) for it in node.get("matchExpressions", []) if it["operator"] == "In"]
                conditions = sum(map(len, (node.get("matchLabels", {}), node.get("matchExpressions", []))))
                self.expect(policy, len(wanted) == conditions, "selects in a way that isn't looked at here")
                values = [(key, value) for key, several in wanted for value in several]
                for key, value in values:
                    found = any(labels.get(key) == value for labels in labelled)
                    self.expect(policy, found, f"nobody is labelled {key}: {value}")
            if path[-1:] == ("namespaceSelector",):
                label = {"kubernetes.io/metadata.name": node.get("matchLabels", {}).get("kubernetes.io/metadata.name")}
                self.expect(policy, node == {"matchLabels": label}, "selects in a way that isn't looked at here")
                (name,) = label.values()
                self.expect(policy, name in NEIGHBOURS, f"there is no namespace {name}")

    def check_completeness(self, services):
        """Whoever there should be is there."""
        first = services[0]
        names = self.names("Service", api="serving")
        self.expect(first, names == {*SERVICES, "query-api"}, f"there are only {sorted(names)}")
        self.expect(first, "observer" in self.names("Deployment"), "nobody observes")
        ticked = [it["spec"]["sink"]["ref"]["name"] for it in self.of("PingSource")]
        self.expect(first, sorted(ticked) == sorted(WRITERS), f"time passes for {ticked}")
        told = {it["spec"]["sink"]["ref"]["name"] for it in self.of("KafkaSource")
                if "dead-letters" not in it["metadata"]["name"]}
        told |= {it["spec"]["subscriber"]["ref"]["name"] for it in self.of("Trigger")}
        self.expect(first, told == set(SERVICES), f"only {sorted(told)} hear anything")
        for it in self.of("Kafka"):
            for listener in it["spec"]["kafka"]["listeners"]:
                for peer in listener.get("networkPolicyPeers", []):
                    selector = peer["namespaceSelector"]
                    ours = {"matchLabels": {"kubernetes.io/metadata.name": "knative-eventing"}}
                    self.expect(it, selector == ours, f"lets {selector} in")
        for it in self.of("Namespace"):
            labels = {key: value for key, value in it["metadata"]["labels"].items() if "pod-security" in key}
            self.expect(it, len(labels) == 3 and set(labels.values()) == {"restricted"}, f"is guarded by {labels}")


def words(node, path):
    """The words right below a mapping, each with where it stands; places in lists are left out."""
    at = ".".join(str(step) for step in ("", *path) if not isinstance(step, int))
    for key, value in node.items():
        several = value if isinstance(value, list) else [value]
        yield from ((f"{at}.{key}", word) for word in several if isinstance(word, str))


def selects(selector, labels):
    """Whether a selector of pods means those with these labels."""
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        it["operator"] == "In" and labels.get(it["key"]) in it["values"] for it in selector.get("matchExpressions", [])
    )


def pods(document):
    """The specs of the pods that a document describes."""
    if document["kind"] in ("Service", "StatefulSet", "Deployment", "Job") and "template" in document["spec"]:
        yield document["spec"]["template"]["spec"]


def contradictions(documents, expected):
    """What contradicts what; a document that can't even be looked at is one contradiction."""
    world = World(copy.deepcopy(documents), expected)
    try:
        return world.check()
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, StopIteration) as error:
        return [*world.errors, f"a field that is needed isn't there: {error!r}"]


def overlays():
    """Every overlay, those that only tests need included."""
    own = sorted((WORKSPACE / "k8s/overlays").iterdir())
    return own + sorted((WORKSPACE / "tests/manifests/overlays").iterdir())


def jobs():
    """The jobs that k8s/run makes, for the laptop's image."""
    image = f'dev.local/rainstorm:{versions()["RAINSTORM"]}'
    os.environ["IMAGE"] = image
    commands = ("seed", "storm", "storm --watch", "watch", "lag", "audit", "rebuild query", "dead-letters list", "order ORDER")
    return [yaml.safe_load(run("k8s/run", "--print", *command.split())) for command in commands]
