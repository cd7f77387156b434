// A TCP client: sends messages of several sizes to an echo server and checks what comes back.
//
//     g++ -pthread client.cpp -o client && ./client HOST PORT

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

static const size_t SIZES[] = {1, 1024, 1024 * 1024};
static const int TIMEOUT = 30;  // seconds without a byte after which we give up

static void fail(const std::string &why) {
    fprintf(stderr, "%s\n", why.c_str());
    _exit(1);  // at once, whatever the other thread is doing
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
    if (fd < 0) fail(std::string("connection failed: ") + strerror(errno));
    timeval timeout{TIMEOUT, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    return fd;
}

// Sends the messages one after another, then says that there are no more.
static void send_all(int fd) {
    size_t position = 0;
    for (size_t size : SIZES) {
        std::string message;
        for (size_t i = 0; i < size; i++) message.push_back(static_cast<char>(pattern(position++)));
        // send() may take only a part of the message: go on with the rest.
        for (size_t sent = 0; sent < size;) {
            ssize_t count = send(fd, message.data() + sent, size - sent, MSG_NOSIGNAL);
            if (count < 0) fail(std::string("cannot send: ") + strerror(errno));
            sent += static_cast<size_t>(count);
        }
    }
    // Half-close: we send no more, but still read. The server sees the end of our data and, when it
    // has sent back everything, closes its side too.
    shutdown(fd, SHUT_WR);
}

int main(int argc, char **argv) {
    if (argc != 3) fail("usage: client HOST PORT");
    size_t total = 0, received = 0;
    for (size_t size : SIZES) total += size;

    int fd = connect_to(argv[1], argv[2]);
    // Send in a thread of its own and read here: if we sent everything before reading, both sides
    // could wait for each other with full buffers.
    std::thread sender(send_all, fd);
    unsigned char data[4096];
    for (;;) {
        ssize_t count = recv(fd, data, sizeof data, 0);
        if (count < 0) fail(std::string("cannot receive: ") + strerror(errno));
        if (count == 0) break;  // the server has closed its side
        for (ssize_t i = 0; i < count; i++, received++) {
            if (received >= total) fail("more came back than we sent");
            if (data[i] != pattern(received)) fail("byte " + std::to_string(received) + " is wrong");
        }
    }
    if (received != total) {
        fail("sent " + std::to_string(total) + " bytes, got " + std::to_string(received) + " back");
    }
    sender.join();
    close(fd);
}
