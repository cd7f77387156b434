// A client that compresses with gzip: sends messages of several sizes to an echo server and checks what comes back.
//
//     javac GzipClient.java && java GzipClient HOST PORT

import java.io.IOException;
import java.net.Socket;
import java.util.Arrays;
import java.util.zip.GZIPInputStream;
import java.util.zip.GZIPOutputStream;

public class GzipClient {
    private static final int[] SIZES = {1, 1024, 1024 * 1024};
    private static final int TIMEOUT = 30_000; // milliseconds without a byte after which we give up

    // The bytes from a position on; each depends on its position.
    private static byte[] pattern(int from, int size) {
        byte[] bytes = new byte[size];
        for (int at = 0; at < size; at++) {
            int i = from + at;
            bytes[at] = (byte) (i * 31 + (i >> 8) * 7 + (i >> 16));
        }
        return bytes;
    }

    private static void fail(String why) {
        System.err.println(why);
        System.exit(1);
    }

    // A message, and what makes it readable at once.
    private static void send(GZIPOutputStream out, byte[] message) {
        try {
            out.write(message);
            out.flush();
        } catch (IOException e) {
            fail("cannot send: " + e.getMessage());
        }
    }

    public static void main(String[] args) throws InterruptedException {
        try (Socket socket = new Socket(args[0], Integer.parseInt(args[1]))) {
            socket.setSoTimeout(TIMEOUT);
            GZIPOutputStream out = new GZIPOutputStream(socket.getOutputStream(), true); // syncFlush
            GZIPInputStream in = null;
            int position = 0;
            for (int size : SIZES) {
                byte[] message = pattern(position, size);
                position += size;
                // Send in a thread of its own and read here: the large one does not fit into the buffers on the way.
                Thread sender = new Thread(() -> send(out, message));
                sender.setDaemon(true);
                sender.start();
                if (in == null) {
                    in = new GZIPInputStream(socket.getInputStream()); // waits for the header
                }
                byte[] answer = in.readNBytes(size);
                sender.join(TIMEOUT);
                if (!Arrays.equals(answer, message)) {
                    fail("other bytes came back for " + size + ", of which there are " + answer.length);
                }
            }
            out.finish();
            socket.shutdownOutput();
            if (in.read() != -1) {
                fail("more than the " + position + " bytes that we sent came back");
            }
        } catch (IOException e) {
            fail("connection failed: " + e);
        }
    }
}
