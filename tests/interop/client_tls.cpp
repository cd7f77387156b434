// A TLS client: sends messages of several sizes to an echo server and checks what comes back.
//
//     g++ client_tls.cpp -o client_tls -lssl -lcrypto && ./client_tls HOST PORT CA

#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

static const size_t SIZES[] = {1, 1024, 1024 * 1024};
static const int TIMEOUT = 30;  // seconds without a byte after which we give up

static void fail(const std::string &why) {
    fprintf(stderr, "%s\n", why.c_str());
    ERR_print_errors_fp(stderr);
    exit(1);
}

// The byte at a position; each depends on its position.
static unsigned char pattern(size_t i) {
    return static_cast<unsigned char>(i * 31 + (i >> 8) * 7 + (i >> 16));
}

// Opens a connection to the server.
static int connect_to(const char *host, const char *port) {
    addrinfo hints{}, *addresses = nullptr;
    hints.ai_socktype = SOCK_STREAM;  // TCP
    int error = getaddrinfo(host, port, &hints, &addresses);
    if (error != 0) fail(std::string("cannot find ") + host + ": " + gai_strerror(error));
    int fd = -1;
    for (addrinfo *a = addresses; a != nullptr; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0) break;
        if (fd >= 0) close(fd);
        fd = -1;
    }
    freeaddrinfo(addresses);
    if (fd < 0) fail("connection failed");
    return fd;
}

// Waits until the socket can do what the library waits for.
static void wait_for(int fd, short events) {
    pollfd waiting{fd, events, 0};
    if (poll(&waiting, 1, TIMEOUT * 1000) != 1) fail("nothing came for too long");
}

// What the library waits for, if it has to wait; anything else has failed.
static short wanted(SSL *tls, int result) {
    switch (SSL_get_error(tls, result)) {
        case SSL_ERROR_WANT_READ: return POLLIN;
        case SSL_ERROR_WANT_WRITE: return POLLOUT;
        default: fail("TLS failed");
    }
    return 0;
}

// Sends the messages and reads meanwhile, on one thread: a connection of this library is not for two. If
// we sent everything before reading, both sides could wait for each other with full buffers.
static void talk(SSL *tls, int fd) {
    std::string sent;
    for (size_t size : SIZES)
        for (size_t end = sent.size() + size; sent.size() < end;) sent.push_back(static_cast<char>(pattern(sent.size())));
    size_t position = 0, received = 0;
    bool is_last_said = false;
    for (;;) {
        short events = POLLIN;
        if (position < sent.size()) {
            int count = SSL_write(tls, sent.data() + position, static_cast<int>(sent.size() - position));
            if (count > 0) position += static_cast<size_t>(count);
            else events = static_cast<short>(events | wanted(tls, count));
        } else if (!is_last_said) {
            // Half-close: we send no more, but still read. The server sends back everything, then closes
            // its side too.
            int result = SSL_shutdown(tls);
            if (result < 0) events = static_cast<short>(events | wanted(tls, result));
            else is_last_said = true;
        }
        unsigned char data[4096];
        int count = SSL_read(tls, data, sizeof data);
        if (count <= 0) {
            if (SSL_get_error(tls, count) == SSL_ERROR_ZERO_RETURN) break;  // the server's close_notify
            events = static_cast<short>(events | wanted(tls, count));
            if (position < sent.size()) events |= POLLOUT;
            wait_for(fd, events);
            continue;
        }
        for (int i = 0; i < count; i++, received++) {
            if (received >= sent.size()) fail("more came back than we sent");
            if (data[i] != pattern(received)) fail("byte " + std::to_string(received) + " is wrong");
        }
    }
    if (received != sent.size()) fail("sent " + std::to_string(sent.size()) + " bytes, got " + std::to_string(received) + " back");
}

int main(int argc, char **argv) {
    if (argc != 4) fail("usage: client_tls HOST PORT CA");
    for (int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
        SSL_CTX *context = SSL_CTX_new(TLS_client_method());
        if (SSL_CTX_load_verify_locations(context, argv[3], nullptr) != 1) fail("no CA");
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
        SSL_CTX_set_min_proto_version(context, version);
        SSL_CTX_set_max_proto_version(context, version);
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        int fd = connect_to(argv[1], argv[2]);
        SSL *tls = SSL_new(context);
        SSL_set_fd(tls, fd);
        SSL_set_tlsext_host_name(tls, argv[1]);
        if (SSL_set1_host(tls, argv[1]) != 1 || SSL_connect(tls) != 1) fail("handshake failed");
        fcntl(fd, F_SETFL, O_NONBLOCK);
        talk(tls, fd);
        SSL_free(tls);
        SSL_CTX_free(context);
        close(fd);
    }
}
