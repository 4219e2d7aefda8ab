"""Signing in, projects, organizations, integrations, drivers."""

import os

from _sdk import dl, done, project, refused

assert dl.login_m2m(email=os.environ["EMAIL"], password=os.environ["PASSWORD"]), (
    "again, with the stored token"
)
home = project()
assert home.id in [one.id for one in dl.projects.list()]
assert dl.projects.get(project_name=home.name).id == home.id
assert dl.projects.get(project_id=home.id).name == home.name
with refused(dl.exceptions.NotFound, "not found"):
    dl.projects.get(project_id="11111111-1111-4111-8111-111111111111")
with refused(dl.exceptions.Conflict, "already"):
    dl.projects.create(home.name)
slashed = dl.projects.create(f"a/b {home.name}")
assert dl.projects.get(project_name=slashed.name).id == slashed.id
slashed.name = f"renamed {home.name}"
assert slashed.update().name == slashed.name
assert [member.email for member in home.list_members()] == [os.environ["EMAIL"]]
home.add_member(email=os.environ["OTHER"], role=dl.MemberRole.ANNOTATOR)
assert {member.email: member.role for member in home.list_members()}[os.environ["OTHER"]] == "annotator"
home.update_member(email=os.environ["OTHER"], role=dl.MemberRole.DEVELOPER)
assert {member.email: member.role for member in home.list_members()}[os.environ["OTHER"]] == "engineer"
home.remove_member(email=os.environ["OTHER"])
assert [member.email for member in home.list_members()] == [os.environ["EMAIL"]]
[org] = dl.organizations.list()
assert os.environ["EMAIL"] in [
    member.email for member in dl.organizations.list_members(organization_id=org.id)
]
assert dl.organizations.list_groups(organization_id=org.id) == []
assert dl.organizations.get(organization_id=org.id).name == org.name

SECRETS = {
    "s3": {"key": "AKIA1", "secret": "hunter2-s3"},
    "gcs": {"key": "", "secret": "", "content": '{"private_key": "hunter2-gcs"}'},
    "azureblob": {"key": "account", "secret": "hunter2-az", "clientId": "c", "tenantId": "t"},
    "aws-sts": {"key": "AKIA1", "secret": "hunter2-sts", "roleArns": "arn:aws:iam::1:role/r"},
    "key_value": {"key": "name", "value": "hunter2-kv"},
}
made = {}
for kind, options in SECRETS.items():
    made[kind] = home.integrations.create(integrations_type=kind, name=f"{kind} {home.id}", options=options)
    again = home.integrations.get(integrations_id=made[kind].id)
    assert (again.name, again.type) == (f"{kind} {home.id}", kind)
    assert "hunter2" not in str(again.to_json())
assert {one["id"] for one in home.integrations.list()} >= {one.id for one in made.values()}
assert "hunter2" not in str(home.integrations.list())
assert home.integrations.list(only_available=True)
with refused(dl.exceptions.Conflict, "already"):
    home.integrations.create(integrations_type="s3", name=f"s3 {home.id}", options=SECRETS["s3"])
home.integrations.update(new_name=f"new {home.id}", integrations_id=made["key_value"].id)
assert home.integrations.get(integrations_id=made["key_value"].id).name == f"new {home.id}"
home.integrations.delete(integrations_id=made["key_value"].id, sure=True, really=True)
with refused(dl.exceptions.NotFound, "no integration"):
    home.integrations.get(integrations_id=made["key_value"].id)

for kind, field in (("s3", "bucket_name"), ("gcs", "bucket_name"), ("azureblob", "bucket_name")):
    driver = home.drivers.create(
        name=f"{kind} {home.id}", driver_type=kind, integration_id=made[kind].id, integration_type=kind,
        **{field: "bucket"}, project_id=home.id, allow_external_delete=False, region="eu-west-1", path="images",
    )  # fmt: skip
    again = home.drivers.get(driver_id=driver.id)
    assert (again.type, again.path, again.allow_external_delete) == (kind, "images", False)
    assert kind != "s3" or again.region == "eu-west-1"
assert len(home.drivers.list()) == 3
used = home.datasets.create("over a driver", driver=home.drivers.get(driver_name=f"s3 {home.id}"))
assert used.driver
with refused(dl.exceptions.BadRequest, "is used by dataset"):
    home.drivers.delete(driver_name=f"s3 {home.id}", sure=True, really=True)
home.drivers.delete(driver_name=f"gcs {home.id}", sure=True, really=True)
assert len(home.drivers.list()) == 2
slashed.delete(sure=True, really=True)
assert slashed.id not in [one.id for one in dl.projects.list()]

key = dl.client_api.generate_api_key(description="for a script")
dl.logout()
dl.login_api_key(key)
assert dl.projects.get(project_id=home.id).name == home.name
dl.logout()
assert dl.login_m2m(email=os.environ["EMAIL"], password="wrong password") is False
done()
