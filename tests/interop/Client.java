// A TCP client: sends messages of several sizes to an echo server and checks what comes back.
//
//     javac Client.java && java Client HOST PORT       plain
//     javac Client.java && java Client HOST PORT CA    TLS, with the CA's certificate as PEM

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    private static final int[] SIZES = {1, 1024, 1024 * 1024};
    private static final int TIMEOUT = 30_000; // milliseconds without a byte after which we give up

    // The byte at a position; each depends on its position.
    private static byte pattern(int i) {
        return (byte) (i * 31 + (i >> 8) * 7 + (i >> 16));
    }

    // Sends the messages one after another, then says that there are no more.
    private static void sendAll(Socket socket) {
        try {
            OutputStream out = socket.getOutputStream();
            int position = 0;
            for (int size : SIZES) {
                byte[] message = new byte[size];
                for (int i = 0; i < size; i++) {
                    message[i] = pattern(position++);
                }
                out.write(message);
            }
            // Half-close: we send no more, but still read. The server sees the end of our data and,
            // when it has sent back everything, closes its side too.
            socket.shutdownOutput();
        } catch (IOException e) {
            fail("cannot send: " + e.getMessage());
        }
    }

    private static void fail(String why) {
        System.err.println(why);
        System.exit(1);
    }

    // Makes connections whose other end has to show a certificate of this CA.
    private static SSLSocketFactory trusting(String path) throws IOException, GeneralSecurityException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (InputStream in = Files.newInputStream(Path.of(path))) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context.getSocketFactory();
    }

    private static Socket connect(String[] args) throws IOException, GeneralSecurityException {
        int port = Integer.parseInt(args[1]);
        if (args.length < 3) {
            return new Socket(args[0], port);
        }
        SSLSocket socket = (SSLSocket) trusting(args[2]).createSocket(args[0], port);
        SSLParameters parameters = socket.getSSLParameters();
        parameters.setEndpointIdentificationAlgorithm("HTTPS"); // the certificate has to be for this host
        socket.setSSLParameters(parameters);
        socket.startHandshake();
        return socket;
    }

    public static void main(String[] args) throws InterruptedException, GeneralSecurityException {
        int total = 0;
        for (int size : SIZES) {
            total += size;
        }
        try (Socket socket = connect(args)) {
            socket.setSoTimeout(TIMEOUT);
            // Send in a thread of its own and read here: if we sent everything before reading, both
            // sides could wait for each other with full buffers.
            Thread sender = new Thread(() -> sendAll(socket));
            sender.setDaemon(true);
            sender.start();

            InputStream in = socket.getInputStream();
            byte[] data = new byte[4096];
            int received = 0;
            int count;
            while ((count = in.read(data)) != -1) { // -1: the server has closed its side
                for (int i = 0; i < count; i++, received++) {
                    if (received >= total) {
                        fail("more than the " + total + " bytes that we sent came back");
                    }
                    if (data[i] != pattern(received)) {
                        fail("byte " + received + " is " + data[i] + ", not " + pattern(received));
                    }
                }
            }
            sender.join(TIMEOUT);
            if (received != total) {
                fail("sent " + total + " bytes, got " + received + " back");
            }
        } catch (IOException e) {
            fail("connection failed: " + e.getMessage());
        }
    }
}
