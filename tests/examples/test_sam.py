from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yaml
from aiohttp.web_protocol import RequestHandler

from emitter import Delivery, Emitter
from emitter.settings import DEFAULT_AGE_LIMIT, DEFAULT_IDLE_LIMIT
from examples.local_aggregator import LocalAggregator
from examples.local_lambda import LocalLambda

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
SAM = ROOT / "examples" / "sam"
TEMPLATE = SAM / "template.yaml"
PATIENCE = 20.0
"""Seconds that a test waits at most for what should take milliseconds."""

PARAMETERS = {"HostName": "metrics.example.com", "AWS::Region": "eu-central-1"}
"""What a newcomer would answer `sam deploy --guided`."""


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms; what they stand for is kept as `{"!Ref": ...}`."""


def _short_form(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        return {f"!{suffix}": loader.construct_sequence(node, deep=True)}
    if isinstance(node, yaml.MappingNode):
        return {f"!{suffix}": loader.construct_mapping(node, deep=True)}
    return {f"!{suffix}": loader.construct_scalar(node)}


Loader.add_multi_constructor("!", _short_form)


def lint(template: Path) -> subprocess.CompletedProcess[str]:
    """What cfn-lint finds; its exit code is 0 if that is nothing."""
    pytest.importorskip("cfnlint", reason="install cfn-lint: pip install 'lambda-emitter[dev]'")
    command = [sys.executable, "-c", "from cfnlint.runner import main; main()", str(template)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """The template as it stands there."""
    document: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)  # noqa: S506 - a safe loader, see above
    return document


@pytest.fixture(scope="module")
def properties(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The properties of each resource."""
    return {name: resource.get("Properties", {}) for name, resource in template["Resources"].items()}


def resolved(value: Any) -> str:
    """A value with the newcomer's parameters in it."""
    if isinstance(value, dict):
        (value,) = value.values()
        return re.sub(r"\$\{(.+?)\}", lambda match: PARAMETERS[match[1]], value)
    return str(value)


def attributes(listed: list[dict[str, str]]) -> dict[str, str]:
    """Keys and values of a load balancer or a target group."""
    return {item["Key"]: item["Value"] for item in listed}


def test_cfn_lint_finds_nothing() -> None:
    """Neither an error nor a warning."""
    run = lint(TEMPLATE)

    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("there", "instead", "finding"),
    [
        ("Architectures: [arm64]", "Architectures: arm64", "E3012"),
        ("Timeout: 10\n", "Timeout: ten\n", "E3012"),
        ("!GetAtt Files.Arn", "!GetAtt Filse.Arn", "E1010"),
        ("HealthCheckPath: /metrics", "HealthCheckPaht: /metrics", "E3002"),
        ("DesiredCount: 1", "DesiredCount: one", "E3012"),
    ],
)
def test_cfn_lint_finds_a_mistake(tmp_path: Path, there: str, instead: str, finding: str) -> None:
    """The test above can fail."""
    text = TEMPLATE.read_text()
    broken = tmp_path / "template.yaml"
    broken.write_text(text.replace(there, instead))
    run = lint(broken)

    assert text.count(there) == 1
    assert run.returncode != 0
    assert finding in run.stdout


def test_the_template_uses_no_aliases() -> None:
    """CloudFormation reads YAML without them; cfn-lint reads it with them."""
    events = yaml.parse(TEMPLATE.read_text(), yaml.SafeLoader)

    assert not [event for event in events if isinstance(event, yaml.AliasEvent)]


def test_every_parameter_is_described_and_asked_for_in_a_group(template: dict[str, Any]) -> None:
    """A newcomer is asked for each of them."""
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]

    assert sorted(grouped) == sorted(template["Parameters"])
    assert all(len(parameter["Description"]) > 20 for parameter in template["Parameters"].values())
    assert all(output["Description"] for output in template["Outputs"].values())


async def test_the_function_counts_with_exactly_the_environment_of_the_template(
    properties: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Under the stock runtime; only the host of the endpoint is another, since nobody has deployed it here."""
    function = properties["Checkout"]
    env = {name: resolved(value) for name, value in function["Environment"]["Variables"].items()}
    endpoint = env["EMITTER_ENDPOINT"]
    async with LocalAggregator(tmp_path / "metrics.sqlite3") as aggregator:
        env["EMITTER_ENDPOINT"] = endpoint.replace("https://metrics.example.com", f"http://127.0.0.1:{aggregator.port}")
        async with LocalLambda(
            function["Handler"],
            cwd=SAM / function["CodeUri"],
            env=env,
            memory_mb=function["MemorySize"],
            timeout=function["Timeout"],
        ) as sandbox:
            answers = [(await sandbox.invoke({"channel": "app"})).payload for _ in range(3)]
            checkout = (await aggregator.settled({"checkout": 3}))["checkout"]

    assert endpoint == "https://metrics.example.com/v1/metrics"
    assert env["EMITTER_ENDPOINT"] == aggregator.endpoint
    assert answers == [{"statusCode": 200}] * 3
    assert (checkout["sums"]["orders"], checkout["sums"]["faas.invocations"]) == (3, 3)


def test_the_function_has_far_more_time_than_a_flush(
    properties: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget of the template is taken by the real emitter, and is a small part of the function's time-out."""
    function = properties["Checkout"]
    for name, value in function["Environment"]["Variables"].items():
        monkeypatch.setenv(name, resolved(value))
    settings = Emitter()._settings

    assert settings.timeout == float(function["Environment"]["Variables"]["EMITTER_TIMEOUT"])
    assert settings.endpoint.secure
    assert dict(settings.resource)["service.name"] == "checkout"
    assert 10 * settings.timeout < function["Timeout"]


def test_what_sam_builds_is_there(properties: dict[str, dict[str, Any]]) -> None:
    """The handler's module, and requirements that name this distribution and import what it provides."""
    function = properties["Checkout"]
    module, _, name = function["Handler"].partition(".")
    tree = ast.parse((SAM / function["CodeUri"] / f"{module}.py").read_text())
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]
    requirements = (SAM / function["CodeUri"] / "requirements.txt").read_text().split("\n")

    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert [line for line in requirements if line[:1].isalpha()] == [project["name"]]
    assert function["Runtime"].removeprefix("python") in " ".join(project["classifiers"])


def test_pip_finds_a_wheel_that_lies_beside_the_requirements(tmp_path: Path) -> None:
    """As the comment there says, from whatever folder `sam build` is called; it calls `pip download -r`."""
    function = tmp_path / "function"
    function.mkdir()
    function.joinpath("requirements.txt").write_text((SAM / "function" / "requirements.txt").read_text())
    with zipfile.ZipFile(function / "lambda_emitter-0.0.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("emitter/__init__.py", "")
        folder = "lambda_emitter-0.0.1.dist-info"
        wheel.writestr(f"{folder}/METADATA", "Metadata-Version: 2.1\nName: lambda-emitter\nVersion: 0.0.1\n")
        wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{folder}/RECORD", "")
    command = [sys.executable, "-m", "pip", "download", "--no-index", "--quiet", "--disable-pip-version-check"]
    found = tmp_path / "found"
    subprocess.run([*command, "-r", function / "requirements.txt", "--dest", found], cwd="/", check=True, timeout=120)

    assert [path.name for path in found.iterdir()] == ["lambda_emitter-0.0.1-py3-none-any.whl"]


def test_the_load_balancer_sticks_by_a_cookie_that_the_emitter_returns(
    properties: dict[str, dict[str, Any]],
) -> None:
    """Stickiness by duration, whose cookies the emitter knows without being told."""
    group = attributes(properties["TargetGroup"]["TargetGroupAttributes"])

    assert group["stickiness.enabled"] == "true"
    assert group["stickiness.type"] == "lb_cookie"
    assert 1 <= int(group["stickiness.lb_cookie.duration_seconds"]) <= 604_800  # a week, ALB's limit


def test_aws_knows_what_cfn_lint_takes_for_granted(properties: dict[str, dict[str, Any]]) -> None:
    """The keys of attributes, the runtime and the architecture, asked of the service models that botocore ships."""
    session = pytest.importorskip("botocore.session", reason="install botocore: pip install 'lambda-emitter[sigv4]'")
    models = {name: session.get_session().get_service_model(name) for name in ("elbv2", "lambda")}
    known = {
        name: models["elbv2"].shape_for(name).members["Key"].documentation
        for name in ("LoadBalancerAttribute", "TargetGroupAttribute")
    }
    balancer = attributes(properties["LoadBalancer"]["LoadBalancerAttributes"])
    group = attributes(properties["TargetGroup"]["TargetGroupAttributes"])

    assert [key for key in balancer if f"<code>{key}</code>" not in known["LoadBalancerAttribute"]] == []
    assert [key for key in group if f"<code>{key}</code>" not in known["TargetGroupAttribute"]] == []
    assert properties["Checkout"]["Runtime"] in models["lambda"].shape_for("Runtime").enum
    assert set(properties["Checkout"]["Architectures"]) <= set(models["lambda"].shape_for("Architecture").enum)


def test_each_side_closes_before_the_one_behind_it(properties: dict[str, dict[str, Any]]) -> None:
    """Emitter, then load balancer, then aggregator; whoever closes first is never surprised."""
    balancer = attributes(properties["LoadBalancer"]["LoadBalancerAttributes"])
    idle = int(balancer["idle_timeout.timeout_seconds"])
    aggregator_idle = inspect.signature(RequestHandler.__init__).parameters["keepalive_timeout"].default

    assert DEFAULT_IDLE_LIMIT < idle < aggregator_idle
    assert int(balancer["client_keep_alive.seconds"]) > DEFAULT_AGE_LIMIT


def test_never_do_two_tasks_have_the_file(properties: dict[str, dict[str, Any]]) -> None:
    """SQLite's write-ahead log is for one host: the old task goes before the new one comes."""
    service = properties["Aggregator"]
    deployment = service["DeploymentConfiguration"]

    assert service["DesiredCount"] == 1
    assert (deployment["MaximumPercent"], deployment["MinimumHealthyPercent"]) == (100, 0)
    assert service["AvailabilityZoneRebalancing"] == "DISABLED"


@contextlib.asynccontextmanager
async def aggregator_started(arguments: list[str]) -> AsyncIterator[str]:
    """A real process with these arguments; its URL. It ends by SIGTERM, as ECS ends a task."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments[1:]), stdout=asyncio.subprocess.PIPE, cwd="/"
    )
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode()
        assert line.startswith("listening on http://0.0.0.0:"), line
        yield line.split()[-1].replace("0.0.0.0", "127.0.0.1")
    finally:
        process.terminate()
        try:
            assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_the_aggregator_starts_by_the_command_line_of_the_template(
    properties: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """On another path and a free port: healthy by the health check, and takes reports where the function has them."""
    task, group = properties["AggregatorTask"], properties["TargetGroup"]
    (container,) = task["ContainerDefinitions"]
    (mount,) = container["MountPoints"]
    (volume,) = task["Volumes"]
    command = [*container["EntryPoint"], *container["Command"]]
    database = command[command.index("--database") + 1]
    port = command[command.index("--port") + 1]
    here = [str(tmp_path / "totals") if word == database else "0" if word == port else word for word in command]
    path = resolved(properties["Checkout"]["Environment"]["Variables"]["EMITTER_ENDPOINT"]).split("/", 3)[3]
    async with aggregator_started(here) as url, aiohttp.ClientSession() as http:
        async with http.get(url + group["HealthCheckPath"]) as answer:
            status = answer.status
        metrics = Emitter(f"{url}/{path}", service="checkout", timeout=PATIENCE)
        metrics.counter("orders").add(2)
        flush = await metrics.flush(delivery=Delivery.ANSWERED)
        await metrics.close()
        async with http.get(f"{url}/api/v1/totals") as answer:
            totals = await answer.json()

    assert command[:3] == ["python", "-m", "emitter"]
    assert "0.0.0.0" in command
    assert str(status) == group["Matcher"]["HttpCode"]
    assert flush.delivery is Delivery.ANSWERED
    assert [service["service"] for service in totals["services"]] == ["checkout"]
    assert database.startswith(mount["ContainerPath"] + "/")
    assert mount["SourceVolume"] == volume["Name"]


def test_one_port_leads_from_the_load_balancer_to_the_aggregator(properties: dict[str, dict[str, Any]]) -> None:
    """Target group, service, container, command line and security group agree."""
    (container,) = properties["AggregatorTask"]["ContainerDefinitions"]
    (target,) = properties["Aggregator"]["LoadBalancers"]
    (opened,) = properties["AggregatorSecurityGroup"]["SecurityGroupIngress"]
    ports = {
        int(container["Command"][container["Command"].index("--port") + 1]),
        container["PortMappings"][0]["ContainerPort"],
        target["ContainerPort"],
        properties["TargetGroup"]["Port"],
        opened["FromPort"],
        opened["ToPort"],
    }

    assert ports == {4318}
    assert target["ContainerName"] == container["Name"]
    assert {
        properties["Listener"]["Port"],
        properties["LoadBalancerFromFunction"]["FromPort"],
        properties["FunctionSecurityGroup"]["SecurityGroupEgress"][0]["ToPort"],
    } == {443}


def test_the_image_starts_as_the_template_starts_it(properties: dict[str, dict[str, Any]]) -> None:
    """Same command, port and user; the Dockerfile's command is what `docker run` without a template does."""
    dockerfile = SAM.joinpath("Dockerfile").read_text()
    (container,) = properties["AggregatorTask"]["ContainerDefinitions"]
    owner = properties["FilesOfAggregator"]["PosixUser"]

    assert yaml.safe_load(re.search(r"^ENTRYPOINT (.+)", dockerfile, re.MULTILINE)[1]) == container["EntryPoint"]
    assert yaml.safe_load(re.search(r"^CMD (.+)", dockerfile, re.MULTILINE)[1]) == container["Command"]
    assert f"USER {owner['Uid']}:{owner['Gid']}" in dockerfile
    assert f"EXPOSE {container['PortMappings'][0]['ContainerPort']}" in dockerfile


def test_the_dockerfile_copies_all_that_the_build_needs() -> None:
    """What pyproject.toml names: the readme, the license, the package with its version. And nothing else."""
    dockerfile = SAM.joinpath("Dockerfile").read_text()
    copied = {source for line in re.findall(r"^COPY (.+)", dockerfile, re.MULTILINE) for source in line.split()[:-1]}
    settings = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {"pyproject.toml", settings["project"]["readme"], *settings["project"]["license-files"], *wheel}

    assert copied == needed
    assert all(ROOT.joinpath(source).exists() for source in copied)
    assert "[aggregator]" in dockerfile
    assert "aggregator" in settings["project"]["optional-dependencies"]
