import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.curator.framework.*;
import org.apache.curator.framework.api.transaction.CuratorOp;
import org.apache.curator.framework.recipes.atomic.*;
import org.apache.curator.framework.recipes.barriers.*;
import org.apache.curator.framework.recipes.cache.*;
import org.apache.curator.framework.recipes.leader.*;
import org.apache.curator.framework.recipes.locks.*;
import org.apache.curator.framework.recipes.nodes.*;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.recipes.watch.PersistentWatcher;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;
import org.apache.zookeeper.*;
import org.apache.zookeeper.data.Stat;

/** Curator's recipes against a server: prints "ok NAME" or "FAIL NAME" and why, then "done". */
public class CuratorRecipes {
    interface Test { void run() throws Exception; }

    static String server;
    static final String root = "curator-" + UUID.randomUUID();
    static final List<CuratorFramework> clients = new ArrayList<>();

    static CuratorFramework client() throws Exception {
        CuratorFramework c = CuratorFrameworkFactory.builder().connectString(server).namespace(root)
            .sessionTimeoutMs(6000).connectionTimeoutMs(10000).retryPolicy(new RetryForever(50)).build();
        c.start();
        c.blockUntilConnected();
        clients.add(c);
        return c;
    }

    static void check(boolean ok, Object what) { if (!ok) throw new AssertionError(String.valueOf(what)); }

    static void eventually(Callable<Boolean> condition, String what) throws Exception {
        long deadline = System.currentTimeMillis() + 15000;
        while (!condition.call()) {
            check(System.currentTimeMillis() < deadline, "never: " + what);
            Thread.sleep(10);
        }
    }

    static void test(String name, Test t) {
        try {
            t.run();
            System.out.println("ok " + name);
        } catch (Throwable e) {
            System.out.println("FAIL " + name);
            e.printStackTrace(System.out);
        }
        for (CuratorFramework c : clients) c.close();
        clients.clear();
        System.out.flush();
    }

    public static void main(String[] args) throws Exception {
        server = args[0];
        test("creates", CuratorRecipes::creates);
        test("transaction", CuratorRecipes::transaction);
        test("mutex", CuratorRecipes::mutex);
        test("readWriteLockAndSemaphore", CuratorRecipes::readWriteLockAndSemaphore);
        test("leaderLatch", CuratorRecipes::leaderLatch);
        test("leaderSelector", CuratorRecipes::leaderSelector);
        test("curatorCache", CuratorRecipes::curatorCache);
        test("oldCaches", CuratorRecipes::oldCaches);
        test("persistentWatcher", CuratorRecipes::persistentWatcher);
        test("atomicsAndBarriers", CuratorRecipes::atomicsAndBarriers);
        test("persistentNode", CuratorRecipes::persistentNode);
        test("containersVanish", CuratorRecipes::containersVanish);
        System.out.println("done");
        System.out.flush();
        System.exit(0);
    }

    static void creates() throws Exception {
        CuratorFramework c = client();
        String path = c.create().creatingParentContainersIfNeeded().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/a/b/c-", new byte[]{1});
        check(path.contains("_c_"), path);
        Stat stat = new Stat();
        c.create().storingStatIn(stat).forPath("/stat", "xyz".getBytes());
        check(stat.getDataLength() == 3 && stat.getCzxid() == stat.getMzxid(), stat);
        check(c.create().orSetData().forPath("/stat", "new".getBytes()).equals("/stat"), "orSetData");
        check(c.checkExists().forPath("/stat").getVersion() == 1, "version");
        check(c.create().idempotent().forPath("/stat2").equals("/stat2") && c.create().idempotent().forPath("/stat2") != null, "idempotent");
        CountDownLatch done = new CountDownLatch(1);
        c.getData().inBackground((client, event) -> { if (event.getResultCode() == 0) done.countDown(); }).forPath("/stat");
        check(done.await(10, TimeUnit.SECONDS), "background");
        c.delete().guaranteed().deletingChildrenIfNeeded().forPath("/a");
        c.sync().forPath("/");
    }

    static void transaction() throws Exception {
        CuratorFramework c = client();
        c.create().forPath("/t");
        List<CuratorOp> ops = List.of(c.transactionOp().create().forPath("/t/a", new byte[0]),
            c.transactionOp().setData().withVersion(0).forPath("/t/a", new byte[]{1}), c.transactionOp().check().withVersion(1).forPath("/t/a"));
        check(c.transaction().forOperations(ops).get(1).getResultStat().getVersion() == 1, "stat");
        try {
            c.transaction().forOperations(c.transactionOp().delete().forPath("/t/a"), c.transactionOp().check().withVersion(9).forPath("/t"));
            check(false, "the transaction should fail");
        } catch (KeeperException.BadVersionException expected) {
            check(c.checkExists().forPath("/t/a") != null, "rolled back");
        }
    }

    static void mutex() throws Exception {
        AtomicInteger inside = new AtomicInteger(), total = new AtomicInteger();
        AtomicBoolean two = new AtomicBoolean();
        ExecutorService pool = Executors.newCachedThreadPool();
        for (int i = 0; i < 4; i++) {
            CuratorFramework c = client();
            pool.submit(() -> {
                InterProcessMutex mutex = new InterProcessMutex(c, "/mutex");
                for (int n = 0; n < 20; n++) {
                    mutex.acquire();
                    if (inside.incrementAndGet() != 1) two.set(true);
                    total.incrementAndGet();
                    inside.decrementAndGet();
                    mutex.release();
                }
                return null;
            });
        }
        pool.shutdown();
        check(pool.awaitTermination(60, TimeUnit.SECONDS), "time");
        check(total.get() == 80 && !two.get(), total);
    }

    static void readWriteLockAndSemaphore() throws Exception {
        CuratorFramework a = client(), b = client();
        InterProcessReadWriteLock x = new InterProcessReadWriteLock(a, "/rw"), y = new InterProcessReadWriteLock(b, "/rw");
        x.readLock().acquire();
        check(y.readLock().acquire(5, TimeUnit.SECONDS), "two readers");
        y.readLock().release();
        check(!y.writeLock().acquire(200, TimeUnit.MILLISECONDS), "writer beside a reader");
        x.readLock().release();
        check(y.writeLock().acquire(5, TimeUnit.SECONDS), "writer");
        InterProcessSemaphoreV2 s = new InterProcessSemaphoreV2(a, "/sem", 1), t = new InterProcessSemaphoreV2(b, "/sem", 1);
        Lease lease = s.acquire();
        check(t.acquire(200, TimeUnit.MILLISECONDS) == null, "second lease");
        s.returnLease(lease);
        check(t.acquire(5, TimeUnit.SECONDS) != null, "lease");
    }

    static void leaderLatch() throws Exception {
        List<LeaderLatch> latches = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            LeaderLatch latch = new LeaderLatch(client(), "/latch", "p" + i);
            latch.start();
            latches.add(latch);
        }
        for (int left = 3; left > 0; left--) {
            eventually(() -> latches.stream().filter(LeaderLatch::hasLeadership).count() == 1, "one leader");
            LeaderLatch leader = latches.stream().filter(LeaderLatch::hasLeadership).findFirst().get();
            check(leader.getLeader().getId().equals(leader.getId()), "leader's id");
            latches.remove(leader);
            leader.close();
        }
    }

    static void leaderSelector() throws Exception {
        CountDownLatch led = new CountDownLatch(2);
        for (int i = 0; i < 2; i++) {
            LeaderSelector s = new LeaderSelector(client(), "/selector", new LeaderSelectorListenerAdapter() {
                public void takeLeadership(CuratorFramework c) { led.countDown(); }
            });
            s.start();
        }
        check(led.await(15, TimeUnit.SECONDS), "both led");
    }

    static void curatorCache() throws Exception {
        CuratorFramework c = client(), w = client();
        w.create().creatingParentsIfNeeded().forPath("/cache/before", "1".getBytes());
        CuratorCache cache = CuratorCache.build(c, "/cache");
        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        cache.listenable().addListener((type, old, data) -> seen.add(type + " " + (data == null ? old : data).getPath()));
        cache.start();
        eventually(() -> seen.contains("NODE_CREATED /cache/before"), "initial");
        w.create().forPath("/cache/a", "1".getBytes());
        w.create().forPath("/cache/a/b", "1".getBytes());
        // A change before the cache has read the new node would be part of its creation.
        eventually(() -> seen.contains("NODE_CREATED /cache/a/b"), "creation");
        w.setData().forPath("/cache/a/b", "2".getBytes());
        w.delete().forPath("/cache/before");
        for (String want : List.of("NODE_CREATED /cache/a", "NODE_CREATED /cache/a/b", "NODE_CHANGED /cache/a/b", "NODE_DELETED /cache/before"))
            eventually(() -> seen.contains(want), want + " in " + seen);
        eventually(() -> cache.size() == 3 && new String(cache.get("/cache/a/b").get().getData()).equals("2"), "content");
        // A lost connection: the cache rebuilds itself.
        c.getZookeeperClient().getZooKeeper().getTestable().closeSocket();
        w.create().forPath("/cache/later", "1".getBytes());
        w.delete().forPath("/cache/a/b");
        eventually(() -> cache.get("/cache/later").isPresent() && cache.get("/cache/a/b").isEmpty(), "after the loss");
        cache.close();
    }

    @SuppressWarnings("deprecation")
    static void oldCaches() throws Exception {
        CuratorFramework c = client(), w = client();
        w.create().creatingParentsIfNeeded().forPath("/old/x", "1".getBytes());
        NodeCache node = new NodeCache(c, "/old/x");
        PathChildrenCache children = new PathChildrenCache(c, "/old", true);
        TreeCache tree = new TreeCache(c, "/old");
        node.start(true);
        children.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
        tree.start();
        w.setData().forPath("/old/x", "2".getBytes());
        w.create().forPath("/old/y", "3".getBytes());
        eventually(() -> new String(node.getCurrentData().getData()).equals("2"), "node cache");
        eventually(() -> children.getCurrentData().size() == 2, "children cache");
        eventually(() -> tree.getCurrentData("/old/y") != null, "tree cache");
        node.close();
        children.close();
        tree.close();
    }

    static void persistentWatcher() throws Exception {
        CuratorFramework c = client(), w = client();
        List<String> seen = Collections.synchronizedList(new ArrayList<>());
        PersistentWatcher watcher = new PersistentWatcher(c, "/pw", true);
        CountDownLatch reset = new CountDownLatch(1);
        watcher.getResetListenable().addListener(reset::countDown);
        watcher.getListenable().addListener(e -> seen.add(e.getType() + " " + e.getPath()));
        watcher.start();
        check(reset.await(10, TimeUnit.SECONDS), "set");
        w.create().forPath("/pw");
        w.create().forPath("/pw/a");
        w.delete().forPath("/pw/a");
        eventually(() -> seen.equals(List.of("NodeCreated /pw", "NodeCreated /pw/a", "NodeDeleted /pw/a")), "events " + seen);
        watcher.close();
        c.watchers().add().withMode(AddWatchMode.PERSISTENT).usingWatcher((Watcher) e -> {}).forPath("/pw");
        c.watchers().removeAll().ofType(Watcher.WatcherType.Any).forPath("/pw");
        try {
            c.watchers().removeAll().ofType(Watcher.WatcherType.Any).forPath("/pw");
            check(false, "nothing should be left to remove");
        } catch (KeeperException.NoWatcherException expected) { }
    }

    static void atomicsAndBarriers() throws Exception {
        CuratorFramework c = client(), d = client();
        DistributedAtomicLong n = new DistributedAtomicLong(c, "/atomic", new RetryForever(10)), m = new DistributedAtomicLong(d, "/atomic", new RetryForever(10));
        for (int i = 0; i < 10; i++) {
            check(n.increment().succeeded() && m.add(2L).succeeded(), "add");
        }
        check(n.get().postValue() == 30, n.get().postValue());
        SharedCount s = new SharedCount(c, "/shared", 1), t = new SharedCount(d, "/shared", 1);
        s.start();
        t.start();
        s.setCount(7);
        eventually(() -> t.getCount() == 7, "shared count");
        DistributedDoubleBarrier x = new DistributedDoubleBarrier(c, "/double", 2), y = new DistributedDoubleBarrier(d, "/double", 2);
        Future<Boolean> entered = Executors.newSingleThreadExecutor().submit(() -> x.enter(10, TimeUnit.SECONDS));
        check(y.enter(10, TimeUnit.SECONDS) && entered.get(), "double barrier");
    }

    static void persistentNode() throws Exception {
        CuratorFramework c = client(), w = client();
        PersistentNode node = new PersistentNode(c, CreateMode.EPHEMERAL, false, "/persistent", "x".getBytes());
        node.start();
        check(node.waitForInitialCreate(10, TimeUnit.SECONDS), "created");
        w.delete().forPath("/persistent");
        eventually(() -> w.checkExists().forPath("/persistent") != null, "created again");
        node.close();
    }

    static void containersVanish() throws Exception {
        CuratorFramework c = client();
        c.create().withMode(CreateMode.CONTAINER).forPath("/box");
        c.create().forPath("/box/x");
        c.delete().forPath("/box/x");
        if (System.getenv("UNDERSTUDY_ZOOKEEPER") == null) // Apache's server looks once a minute
            eventually(() -> c.checkExists().forPath("/box") == null, "container gone");
    }
}
