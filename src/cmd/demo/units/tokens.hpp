// The words of a small language of expressions.
#ifndef DEMO_TOKENS_HPP
#define DEMO_TOKENS_HPP

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace demo {

enum class TokenKind { Number, Name, Sign, End };

struct Token {
    TokenKind kind;
    std::string_view text; // of the source, which must live on
    std::size_t column;
};

class SyntaxError : public std::runtime_error {
public:
    SyntaxError(const std::string &what, std::size_t where)
        : std::runtime_error(what + " in column " + std::to_string(where)), column(where)
    {
    }
    std::size_t column;
};

std::vector<Token> tokens_of(std::string_view source);

} // namespace demo

#endif
