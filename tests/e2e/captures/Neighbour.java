import java.io.File;
import java.io.RandomAccessFile;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import java.util.concurrent.locks.LockSupport;

/** A container beside the agent: looks for its files and sockets all the time, reads what it finds, and writes over it. */
class Neighbour {
    static final byte[] FORGED = "== FORGED BY A NEIGHBOUR ==\n".getBytes();
    static final String CONTROL = "/dev/shm/.diagbot-control";
    static final Set<String> told = new HashSet<>();
    static boolean ownDump;

    public static void main(String[] words) throws Exception {
        if (words.length > 0) {
            ownDump = true;
            // The target: also the one whose thread dump outgrows the agent's memory.
            for (int i = 0; i < Integer.parseInt(words[0]); i++) {
                Thread worker = new Thread(null, () -> down(40), "a-worker-that-waits-for-its-work-" + i, 256 << 10);
                worker.setDaemon(true);
                worker.start();
            }
            Files.write(Path.of(CONTROL), "readable by whoever looks".getBytes());
            // Whatever the umask and whoever looks.
            new File(CONTROL).setReadable(true, false);
        }
        Files.createDirectories(Path.of("/tmp/ready"));
        for (long round = 0; ; round++) {
            for (String folder : new String[] {"/dev/shm", "/tmp", "/var/tmp", "/run"}) {
                look(new File(folder));
            }
            if (round % 50 == 0) {
                abstractSockets();
                processes();
            }
            // Three that never rest would have the node for themselves, and the agent has no share of it.
            LockSupport.parkNanos(200_000);
        }
    }

    static void down(int depth) {
        if (depth > 0) {
            down(depth - 1);
            return;
        }
        synchronized (Thread.currentThread()) {
            try {
                Thread.currentThread().wait();
            } catch (InterruptedException ended) {
                // It is to end.
            }
        }
    }

    static void look(File folder) {
        File[] found = folder.listFiles((in, name) -> name.contains("diagbot"));
        if (found == null) {
            return;
        }
        for (File file : found) {
            if (file.getName().endsWith(".hprof") && ownDump) {
                // The JVM of the target wrote it for itself: the one dump that the target could always read.
                tell("own dump seen");
            } else if (file.getPath().equals(CONTROL)) {
                tell("control read " + file.length());
            } else if (file.isDirectory()) {
                tell("SEEN " + file);
                fetch(new File(file, "door"));
            } else {
                forge(file);
            }
        }
    }

    static void forge(File file) {
        try (RandomAccessFile open = new RandomAccessFile(file, "rw")) {
            tell("OPENED " + file);
            for (int i = 0; i < 2000; i++) {
                open.seek(0);
                open.write(FORGED);
            }
        } catch (Exception gone) {
            tell("SEEN " + file);
        }
    }

    static void fetch(File door) {
        try (SocketChannel channel = SocketChannel.open(UnixDomainSocketAddress.of(door.getPath()))) {
            ByteBuffer ask = ByteBuffer.allocate(10);
            channel.write(ask);
            ByteBuffer answer = ByteBuffer.allocate(1 << 16);
            long read = 0;
            for (int n; (n = channel.read(answer)) > 0; answer.clear()) {
                read += n;
            }
            tell("READ " + read + " bytes from " + door);
        } catch (Exception refused) {
            tell("DOOR " + door);
        }
    }

    static void abstractSockets() throws Exception {
        for (String line : Files.readAllLines(Path.of("/proc/net/unix"))) {
            // Containers of a pod share the network namespace: an abstract socket could be connected to, while the name of one
            // in a folder opens nothing without the folder.
            if (line.contains(" @") && line.contains("diagbot")) {
                tell("SOCKET " + line.substring(line.lastIndexOf(" ")));
            }
        }
    }

    /** Only the target sees the agent here; the others have a process namespace of their own. */
    static void processes() {
        for (File process : new File("/proc").listFiles()) {
            try {
                if (!Files.readString(new File(process, "comm").toPath()).startsWith("diagbot")) {
                    continue;
                }
            } catch (Exception none) {
                continue;
            }
            tell("agent seen");
            for (String folder : new String[] {"root/tmp", "root/var/tmp", "root/dev/shm", "cwd", "fd"}) {
                File[] found = new File(process, folder).listFiles();
                if (found != null) {
                    tell("LISTED " + folder);
                }
            }
            for (int fd = 0; fd < 40; fd++) {
                try (RandomAccessFile open = new RandomAccessFile(new File(process, "fd/" + fd), "rw")) {
                    tell("OPENED descriptor " + fd);
                } catch (Exception refused) {
                    // As it should be.
                }
            }
        }
    }

    static void tell(String what) {
        if (told.size() < 1000 && told.add(what)) {
            System.out.println(what);
        }
    }
}
