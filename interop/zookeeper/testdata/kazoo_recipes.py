"""kazoo's recipes and calls against a ZooKeeper server: prints "ok NAME" or "FAIL NAME" and why, then "done"."""
import logging
import sys
import threading
import time
import traceback
import uuid

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (BadVersionError, NoAuthError, NoNodeError, NodeExistsError, NotEmptyError,
                              NoChildrenForEphemeralsError, RolledBackError)
from kazoo.protocol.states import EventType
from kazoo.security import make_acl, make_digest_acl

hosts = sys.argv[1]
logging.basicConfig(level=logging.CRITICAL)
root = "/kazoo-" + uuid.uuid4().hex
clients = []


def client(**options):
    c = KazooClient(hosts=hosts + root, timeout=6.0, **options)
    c.start(timeout=10)
    clients.append(c)
    return c


def eventually(condition, what):
    deadline = time.time() + 10
    while not condition():
        assert time.time() < deadline, "never: " + what
        time.sleep(0.01)


def raises(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as e:
        return e
    raise AssertionError("%s was not raised" % kind.__name__)


def basics():
    c = client()
    assert c.create("/basics", b"one") == "/basics"
    raises(NodeExistsError, c.create, "/basics", b"")
    data, stat = c.get("/basics")
    assert data == b"one" and stat.version == 0 and stat.dataLength == 3 and stat.czxid == stat.mzxid
    assert c.set("/basics", b"two", version=0).version == 1
    raises(BadVersionError, c.set, "/basics", b"x", version=0)
    c.create("/basics/child")
    raises(NotEmptyError, c.delete, "/basics")
    assert c.get_children("/basics") == ["child"]
    children, stat = c.get_children("/basics", include_data=True)
    assert stat.numChildren == 1 and stat.cversion == 1
    assert c.exists("/nothing") is None
    raises(NoNodeError, c.get, "/nothing")
    path, stat = c.create("/basics/with", b"stat", include_data=True)
    assert path == "/basics/with" and stat.dataLength == 4
    assert c.sync("/basics") == "/basics"
    c.delete("/basics", recursive=True)
    assert c.ensure_path("/a/b/c")


def ephemerals_and_sequence():
    c, d = client(), client()
    assert c.create("/seq/n-", makepath=True, sequence=True) == "/seq/n-0000000000"
    assert c.create("/seq/n-", ephemeral=True, sequence=True) == "/seq/n-0000000001"
    c.create("/eph", ephemeral=True)
    assert d.exists("/eph").ephemeralOwner == c.client_id[0]
    raises(NoChildrenForEphemeralsError, d.create, "/eph/child")
    c.stop()
    assert d.exists("/eph") is None
    assert d.get_children("/seq") == ["n-0000000000"]


def transactions():
    c = client()
    c.create("/t")
    t = c.transaction()
    t.create("/t/a", b"x")
    t.set_data("/t/a", b"y")
    t.check("/t/a", version=1)
    t.delete("/t/a")
    results = t.commit()
    assert results[0] == "/t/a" and results[1].version == 1 and results[2] is True and results[3] is True, results
    t = c.transaction()
    t.create("/t/b")
    t.check("/t", version=9)
    t.delete("/t")
    results = t.commit()
    assert isinstance(results[0], RolledBackError) and isinstance(results[1], BadVersionError), results
    assert c.exists("/t/b") is None


def watches():
    c, d = client(), client()
    seen = []
    d.exists("/w", watch=seen.append)
    c.create("/w", b"")
    eventually(lambda: len(seen) == 1, "created")
    d.get("/w", watch=seen.append)
    d.get_children("/w", watch=seen.append)
    c.set("/w", b"x")
    eventually(lambda: len(seen) == 2, "changed")
    c.create("/w/c")
    eventually(lambda: len(seen) == 3, "child")
    d.get_children("/w/c", watch=seen.append)
    c.delete("/w/c")
    eventually(lambda: len(seen) == 4, "deleted")
    assert [e.type for e in seen] == [EventType.CREATED, EventType.CHANGED, EventType.CHILD, EventType.DELETED], seen


def data_and_children_watch():
    c, d = client(), client()
    c.ensure_path("/dw")
    values, lists = [], []
    d.DataWatch("/dw", lambda data, stat: values.append(data))
    d.ChildrenWatch("/dw", lambda children: lists.append(sorted(children)))
    for i in range(20):
        value = b"%d" % i
        c.set("/dw", value)
        eventually(lambda: values[-1] == value, "value %d" % i)
    for i in range(5):
        c.create("/dw/%d" % i)
    eventually(lambda: lists[-1] == ["0", "1", "2", "3", "4"], "children")


def lock():
    counter = {"in": 0, "max": 0, "total": 0}

    def work():
        c = client()
        l = c.Lock("/lock", str(threading.get_ident()))
        for _ in range(10):
            with l:
                counter["in"] += 1
                counter["max"] = max(counter["max"], counter["in"])
                counter["total"] += 1
                time.sleep(0.001)
                counter["in"] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert counter["total"] == 50 and counter["max"] == 1, counter


def read_write_lock_and_semaphore():
    c, d = client(), client()
    a, b, w = c.ReadLock("/rw", "a"), d.ReadLock("/rw", "b"), d.WriteLock("/rw", "w")
    assert a.acquire(timeout=5) and b.acquire(timeout=5)
    assert not w.acquire(blocking=False)
    a.release(), b.release()
    assert w.acquire(timeout=5)
    w.release()
    s, t = c.Semaphore("/sem", max_leases=1), d.Semaphore("/sem", max_leases=1)
    assert s.acquire(timeout=5)
    assert not t.acquire(blocking=False)
    s.release()
    assert t.acquire(timeout=5)


def election():
    order, done = [], threading.Event()
    a, b = client(), client()

    def lead(name, c):
        order.append(name)
        if name == "a":
            done.wait(10)
            raise SystemExit

    ta = threading.Thread(target=lambda: swallow(lambda: a.Election("/el", "a").run(lead, "a", a)))
    ta.start()
    eventually(lambda: order == ["a"], "a leads")
    tb = threading.Thread(target=lambda: b.Election("/el", "b").run(lead, "b", b))
    tb.start()
    eventually(lambda: len(b.Election("/el").contenders()) == 2, "two contenders")
    done.set()
    ta.join(10), tb.join(10)
    assert order == ["a", "b"], order


def swallow(call):
    try:
        call()
    except SystemExit:
        pass


def party_counter_queue_barrier():
    c, d = client(), client()
    p, q = c.Party("/party", "a"), d.Party("/party", "b")
    p.join(), q.join()
    assert sorted(p) == ["a", "b"] and len(q) == 2
    counter = c.Counter("/counter")
    counter += 2
    other = d.Counter("/counter")
    other -= 5
    assert c.Counter("/counter").value == -3
    queue = c.LockingQueue("/queue")
    queue.put(b"first"), queue.put(b"urgent", priority=1)
    taker = d.LockingQueue("/queue")
    assert taker.get(timeout=5) == b"urgent" and taker.consume()
    assert taker.get(timeout=5) == b"first" and taker.consume()
    plain = c.Queue("/plain")
    plain.put(b"1"), plain.put(b"2")
    assert plain.get() == b"1" and plain.get() == b"2" and plain.get() is None
    barrier = c.Barrier("/barrier")
    barrier.create()
    assert not d.Barrier("/barrier").wait(0.1)
    threading.Timer(0.1, barrier.remove).start()
    assert d.Barrier("/barrier").wait(10)
    double = [x.DoubleBarrier("/double", 2) for x in (c, d)]
    threads = [threading.Thread(target=x.enter) for x in double]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10)
    assert all(x.participating for x in double)


def acls():
    user = client(auth_data=[("digest", "user:pass")])
    stranger = client()
    user.create("/private", b"x", acl=[make_digest_acl("user", "pass", all=True)])
    raises(NoAuthError, stranger.get, "/private")
    raises(NoAuthError, stranger.set, "/private", b"")
    stranger.add_auth("digest", "user:pass")
    assert stranger.get("/private")[0] == b"x"
    acl, stat = user.get_acls("/private")
    assert stat.aversion == 0 and acl[0].id.scheme == "digest"
    assert user.set_acls("/private", [make_acl("world", "anyone", read=True)]).aversion == 1
    assert client().get("/private")[0] == b"x"
    creator = client(default_acl=[make_acl("auth", "", all=True)], auth_data=[("digest", "me:pw")])
    creator.create("/creators")
    raises(NoAuthError, client().get, "/creators")


def reconnect_keeps_the_session():
    c, other = client(), client()
    states = []
    c.add_listener(states.append)
    c.create("/keep", ephemeral=True)
    session = c.client_id
    c._connection._socket.shutdown(2)
    eventually(lambda: KazooState.SUSPENDED in states and states[-1] == KazooState.CONNECTED, "reconnected")
    assert c.client_id == session and other.exists("/keep")
    c.retry(c.set, "/keep", b"still mine")


def expiry_is_told():
    c, other = client(), client()
    states = []
    c.add_listener(states.append)
    c.create("/gone", ephemeral=True)
    thief = KazooClient(hosts=hosts, timeout=6.0, client_id=c.client_id)
    thief.start(timeout=10)
    thief.stop()  # closes the session that both have
    thief.close()
    eventually(lambda: KazooState.LOST in states and c.connected, "lost")
    assert other.exists("/gone") is None


def pipelined():
    c = client()
    c.create("/pipe")
    pending = [c.create_async("/pipe/n-", b"%d" % i, sequence=True) for i in range(1000)]
    paths = [p.get(timeout=30) for p in pending]
    assert paths == ["/pipe/n-%010d" % i for i in range(1000)]
    reads = [c.get_async(p) for p in paths]
    for i, r in enumerate(reads):
        assert r.get(timeout=30)[0] == b"%d" % i


def large_values():
    c = client()
    value = b"x" * (1024 * 1024 - 1000)
    c.create("/large", value)
    assert c.get("/large")[0] == value


def four_letter_words():
    c = client()
    assert c.command(b"ruok") == "imok"
    assert c.command(b"isro") == "rw"
    assert "Mode: standalone" in c.command(b"srvr")
    assert c.server_version()[:2] == (3, 9), c.server_version()
    assert "zk_server_state\tstandalone" in c.command(b"mntr")


if __name__ == "__main__":
    setup = KazooClient(hosts=hosts)
    setup.start(timeout=10)
    setup.create(root)
    for test in (basics, ephemerals_and_sequence, transactions, watches, data_and_children_watch, lock,
                 read_write_lock_and_semaphore, election, party_counter_queue_barrier, acls,
                 reconnect_keeps_the_session, expiry_is_told, pipelined, large_values, four_letter_words):
        try:
            test()
            print("ok", test.__name__, flush=True)
        except Exception:
            print("FAIL", test.__name__)
            print(traceback.format_exc(), flush=True)
        for c in clients:
            c.stop()
            c.close()
        clients.clear()
    setup.stop()
    print("done", flush=True)
