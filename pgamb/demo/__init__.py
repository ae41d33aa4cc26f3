"""The embedded cluster: real PostgreSQL and etcd servers on this machine, for `pgamb demo` and the tests."""
