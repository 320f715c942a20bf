"""What will be built and what may ship: recipe, methods, plan, search and judgement; pure."""
