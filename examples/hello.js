// Greets somebody: whiskraft invoke examples/hello.js -p name=Ada
function main(args) {
  const name = args.name || "stranger";
  console.log(`greeting ${name}`);
  return { greeting: `Hello, ${name}!`, activation: process.env.__OW_ACTIVATION_ID };
}
