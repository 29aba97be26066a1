"""Takes user-data apart as cloud-init does (cloudinit/user_data.py: first line, else Python's email package).

take_apart.py FILE leaves FILE.cloud-config, when there is such a part, FILE.ours, kubestrap's configuration, and
FILE.start, when it brings the script that fetches kubestrap.
"""

import email
import sys

import yaml

OURS = "application/x-kubestrap+yaml"
SERVICE = "kubestrap.service"
START = "/run/kubestrap-start"

name = sys.argv[1]
text = open(name).read()
parts = {}
if text.startswith("#cloud-config"):
    parts["text/cloud-config"] = text
    files = [f for f in yaml.safe_load(text)["write_files"] if f["path"] == "/etc/kubestrap/config.yaml"]
    assert len(files) == 1, "one configuration is written"
    assert files[0]["permissions"] == "0600", "the configuration is for root alone"
    parts[OURS] = files[0]["content"]
elif text.startswith("#kubestrap"):
    parts[OURS] = text
else:
    message = email.message_from_string(text)
    assert message.is_multipart() and not message.defects, message.defects
    for part in message.walk():
        if not part.is_multipart():
            assert not part.defects, part.defects
            assert part.get_content_type() not in parts, "one part of each type"
            parts[part.get_content_type()] = part.get_payload(decode=True).decode()

if "text/cloud-config" in parts:
    config = yaml.safe_load(parts["text/cloud-config"])
    starts = [c for c in config["runcmd"] if SERVICE in c]
    scripts = [f["content"] for f in config.get("write_files", []) if f["path"] == START]
    if scripts:
        assert not starts and [c[:2] for c in config["runcmd"]] == [["sh", START]], "the script alone starts the service"
        starts = [line.split() for line in scripts[0].splitlines() if SERVICE in line]
        open(name + ".start", "w").write(scripts[0])
    # A start that waits would wait for the whole bootstrap.
    assert starts and all("--no-block" in c for c in starts), "the service is started without waiting for it"
    open(name + ".cloud-config", "w").write(parts["text/cloud-config"])
open(name + ".ours", "w").write(parts[OURS])
