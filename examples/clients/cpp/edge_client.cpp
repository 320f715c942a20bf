// Asks a model through the local door of `edge-runtime serve --uds PATH`: shared memory for tensors, a Unix socket as
// doorbell. The wire format stands in docs/local-door.md. Standard C++17 and Linux, no library.
//
//   g++ -std=c++17 -O2 -o edge_client edge_client.cpp
//   ./edge_client /run/edge/models.sock MODEL INPUT 1x224x224x3 uint8 < pixels
//
// Reads one tensor, row after row as the model's description orders its axes, from standard input; prints each output
// tensor of the answer on a line of its own.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace edge {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian, and so are these structures");

enum Kind : uint8_t { kHello = 0, kCall = 1, kMap = 4, kWelcome = 128, kAnswer = 129, kMapped = 132, kRefusal = 255 };

struct Dtype {
  const char* name;
  uint8_t code;
  uint64_t bytes;  // of one number
};
constexpr Dtype kDtypes[] = {{"uint8", 1, 1}, {"float32", 10, 4}};
constexpr uint8_t kFloat32 = 10;

inline const Dtype& dtype_named(const std::string& name) {
  for (const Dtype& one : kDtypes)
    if (name == one.name) return one;
  throw std::runtime_error("no dtype is called " + name + "; write uint8 or float32");
}

inline uint64_t bytes_of(const std::vector<int64_t>& shape, const Dtype& dtype) {
  uint64_t bytes = dtype.bytes;
  for (int64_t size : shape)
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes))
      throw std::runtime_error("no tensor has this shape");
  return bytes;
}

constexpr uint64_t kAlignment = 64;

struct Header {  // of every message
  uint8_t kind, flags;
  uint16_t zero;
  uint32_t number, head_bytes;
  int32_t priority;
  uint64_t time_left_us, body_bytes;
};
static_assert(sizeof(Header) == 32);

struct Tensor {
  std::string name;
  uint8_t dtype;
  std::vector<int64_t> shape;
  uint32_t region;
  uint64_t offset, size;
};

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Writer {  // a head, field after field
 public:
  template <class T>
  Writer& put(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& put(const std::string& text) {
    bytes += text;
    return *this;
  }
  std::string bytes;
};

class Reader {  // the same the other way; nothing is read past the end
 public:
  explicit Reader(const std::string& bytes) : bytes_(bytes) {}
  template <class T>
  T take() {
    T value;
    std::memcpy(&value, part(sizeof value), sizeof value);
    return value;
  }
  std::string text(size_t size) { return std::string(part(size), size); }

 private:
  const char* part(size_t size) {
    if (size > bytes_.size() - at_) throw std::runtime_error("a message ends too early");
    at_ += size;
    return bytes_.data() + at_ - size;
  }
  const std::string& bytes_;
  size_t at_ = 0;
};

class Client {
 public:
  // region_bytes: memory shared with the server, for input and answer together.
  Client(const std::string& path, size_t region_bytes) : size_(region_bytes) {
    socket_ = check(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) throw std::runtime_error("the path is too long");
    std::memcpy(address.sun_path, path.data(), path.size());
    check(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), path.c_str());
    ask(kHello, Writer().put(std::string("edgeflt\0", 8)).put<uint32_t>(1).bytes, kWelcome);
    share();
  }
  ~Client() {
    ::munmap(memory_, size_);
    ::close(socket_);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Where the input goes; fill it in place. The answer is written behind it.
  char* input() { return memory_; }
  const char* at(const Tensor& tensor) const {
    if (tensor.region == 0) return body_.data() + tensor.offset;
    return memory_ + tensor.offset;
  }

  std::vector<Tensor> infer(const std::string& model, const std::string& input, const std::vector<int64_t>& shape,
                            const Dtype& dtype) {
    const uint64_t input_bytes = bytes_of(shape, dtype);
    const uint64_t answers = (input_bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (input_bytes > size_ || answers > size_) throw std::runtime_error("the region is too small");
    Writer head;
    for (size_t count : {model.size(), size_t{0}, size_t{0}, size_t{0}, size_t{1}, size_t{0}})
      head.put(static_cast<uint16_t>(count));  // lengths of model, version, sequence; outputs, inputs; 0
    head.put<uint32_t>(1).put<uint64_t>(answers).put<uint64_t>(size_ - answers).put(model);
    head.put(dtype.code).put(static_cast<uint8_t>(shape.size())).put(static_cast<uint16_t>(input.size()));
    head.put<uint32_t>(1).put<uint64_t>(0).put(input_bytes);
    for (int64_t size : shape) head.put(size);
    head.put(input);
    const std::string answer = ask(kCall, head.bytes, kAnswer);
    Reader reader(answer);
    const auto model_bytes = reader.take<uint16_t>(), version_bytes = reader.take<uint16_t>();
    const auto count = reader.take<uint16_t>();
    reader.take<uint16_t>();
    reader.text(model_bytes + version_bytes);
    std::vector<Tensor> tensors;
    for (int i = 0; i < count; ++i) tensors.push_back(tensor(reader));
    return tensors;
  }

 private:
  Tensor tensor(Reader& reader) {
    Tensor one;
    one.dtype = reader.take<uint8_t>();
    const auto axes = reader.take<uint8_t>();
    const auto name_bytes = reader.take<uint16_t>();
    one.region = reader.take<uint32_t>();
    one.offset = reader.take<uint64_t>();
    one.size = reader.take<uint64_t>();
    for (int axis = 0; axis < axes; ++axis) one.shape.push_back(reader.take<int64_t>());
    one.name = reader.text(name_bytes);
    const uint64_t whole = one.region == 0 ? body_.size() : size_;
    if (one.region > 1 || one.offset > whole || one.size > whole - one.offset)
      throw std::runtime_error("an answer names memory that is not there");
    return one;
  }

  void share() {
    const int file = check(::memfd_create("edge-client", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
    check(::ftruncate(file, static_cast<off_t>(size_)), "ftruncate");
    // The server refuses memory that could shrink while it reads it.
    check(::fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "F_ADD_SEALS");
    void* memory = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
    memory_ = static_cast<char*>(memory);
    ask(kMap, "", kMapped, 1);  // the server says when it is ready to receive the descriptor
    char byte = 0, control[CMSG_SPACE(sizeof(int))] = {};
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* first = CMSG_FIRSTHDR(&message);
    first->cmsg_level = SOL_SOCKET;
    first->cmsg_type = SCM_RIGHTS;
    first->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(first), &file, sizeof(int));
    check(static_cast<int>(::sendmsg(socket_, &message, MSG_NOSIGNAL)), "sendmsg");
    ::close(file);
    receive(kMapped);
  }

  std::string ask(uint8_t kind, const std::string& head, uint8_t wanted, uint32_t number = 0) {
    Header header{};
    header.kind = kind;
    header.number = number;
    header.head_bytes = static_cast<uint32_t>(head.size());
    std::string message(reinterpret_cast<const char*>(&header), sizeof header);
    message += head;
    for (size_t sent = 0; sent < message.size();) {
      const ssize_t some = ::send(socket_, message.data() + sent, message.size() - sent, MSG_NOSIGNAL);
      sent += static_cast<size_t>(check(static_cast<int>(some), "send"));
    }
    return receive(wanted);
  }

  std::string receive(uint8_t wanted) {
    Header header;
    fill(reinterpret_cast<char*>(&header), sizeof header);
    std::string head(header.head_bytes, '\0');
    fill(head.data(), head.size());
    body_.resize(header.body_bytes);
    fill(body_.data(), body_.size());
    if (header.kind == kRefusal) throw Refused(reason(head));
    if (header.kind != wanted) throw std::runtime_error("an answer of another kind came");
    return head;
  }

  static std::string reason(const std::string& head) {
    Reader reader(head);
    reader.take<uint32_t>();  // milliseconds after which to ask again
    const auto code = reader.take<uint16_t>(), cannot = reader.take<uint16_t>();
    const auto because = reader.take<uint16_t>(), remedy = reader.take<uint16_t>();
    reader.text(code);
    std::string sentence = "cannot " + reader.text(cannot);
    sentence += ": " + reader.text(because);
    return remedy ? sentence + "; " + reader.text(remedy) : sentence;
  }

  void fill(char* into, size_t size) {
    while (size > 0) {
      const ssize_t some = ::recv(socket_, into, size, 0);
      if (some <= 0) throw std::runtime_error("the server closed the connection");
      into += some;
      size -= static_cast<size_t>(some);
    }
  }

  static int check(int result, const char* doing) {
    if (result < 0) throw std::system_error(errno, std::generic_category(), doing);
    return result;
  }

  int socket_ = -1;
  size_t size_;
  char* memory_ = nullptr;
  std::string body_;
};

}  // namespace edge

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: edge_client SOCKET MODEL INPUT 1x224x224x3 uint8|float32 < tensor\n");
    return 2;
  }
  try {
    std::vector<int64_t> shape;
    for (const char* at = argv[4]; *at; at += *at == 'x') {
      char* end = nullptr;
      shape.push_back(std::strtoll(at, &end, 10));
      if (end == at || (*end != 'x' && *end != '\0')) throw std::runtime_error("the shape is not like 1x224x224x3");
      at = end;
    }
    const edge::Dtype& dtype = edge::dtype_named(argv[5]);
    const uint64_t bytes = edge::bytes_of(shape, dtype);
    edge::Client client(argv[1], bytes + (1 << 20));  // a mebibyte for the answer
    if (std::fread(client.input(), 1, bytes, stdin) != bytes)
      throw std::runtime_error("standard input holds less than shape and dtype say, " + std::to_string(bytes) + " bytes");
    if (std::fgetc(stdin) != EOF)
      throw std::runtime_error("standard input holds more than shape and dtype say, " + std::to_string(bytes) + " bytes");
    for (const edge::Tensor& tensor : client.infer(argv[2], argv[3], shape, dtype)) {
      std::printf("%s", tensor.name.c_str());
      if (tensor.dtype == edge::kFloat32)
        for (uint64_t i = 0; i < tensor.size / sizeof(float); ++i)
          std::printf(" %.7g", reinterpret_cast<const float*>(client.at(tensor))[i]);
      std::printf("\n");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "edge_client: %s\n", error.what());
    return 1;
  }
}
