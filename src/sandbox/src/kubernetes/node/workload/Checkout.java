import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/** A shop's checkout whose payments and stock each hold the lock that the other waits for; not so with `--healthy`. */
public final class Checkout {
    private static final Object PAYMENTS = new Object();
    private static final Object STOCK = new Object();
    private static final List<byte[]> CARTS = new ArrayList<>();
    /** What only the process knows: it stands on the heap, and hence in a heap dump, and nowhere else. */
    private static final String CARD_KEY = "card-key-of-checkout-5f41c02e9d";

    public static void main(String[] args) throws Exception {
        System.out.println("checkout: starting, with a card key of " + CARD_KEY.length() + " characters");
        for (int i = 0; i < 64; i++) {
            CARTS.add(new byte[16 * 1024]);
        }
        boolean healthy = List.of(args).contains("--healthy");
        CountDownLatch both = new CountDownLatch(healthy ? 0 : 2);
        start("payment-worker-1", healthy ? Checkout::idle : () -> takeBoth(PAYMENTS, STOCK, both));
        start("stock-worker-1", healthy ? Checkout::idle : () -> takeBoth(STOCK, PAYMENTS, both));
        for (int i = 1; i <= 3; i++) {
            start("http-worker-" + i, Checkout::idle);
        }
        both.await();
        System.out.println("checkout: ready");
        while (true) {
            Thread.sleep(5000);
            System.out.println("checkout: " + CARTS.size() + " carts wait for payment");
        }
    }

    private static void start(String name, Runnable work) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        thread.start();
    }

    private static void takeBoth(Object first, Object second, CountDownLatch both) {
        synchronized (first) {
            both.countDown();
            try {
                both.await();
            } catch (InterruptedException e) {
                return;
            }
            synchronized (second) {
                System.out.println("checkout: never printed");
            }
        }
    }

    private static void idle() {
        try {
            new CountDownLatch(1).await();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
