import os

# Several devices on one machine, so that sharded programs run everywhere the tests do.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
