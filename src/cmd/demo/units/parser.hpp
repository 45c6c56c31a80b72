// Expressions as trees.
#ifndef DEMO_PARSER_HPP
#define DEMO_PARSER_HPP

#include "tokens.hpp"

#include <memory>
#include <variant>

namespace demo {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Number {
    double value;
};
struct Variable {
    std::string name;
};
struct Negation {
    ExpressionPtr operand;
};
struct Binary {
    std::string sign;
    ExpressionPtr left, right;
};
struct Call {
    std::string name;
    std::vector<ExpressionPtr> arguments;
};

struct Expression {
    std::variant<Number, Variable, Negation, Binary, Call> node;
};

ExpressionPtr parse(std::string_view source);
std::string with_brackets(const Expression &expression);

} // namespace demo

#endif
