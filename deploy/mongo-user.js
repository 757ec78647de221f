// Run once by the mongo image, when its volume is empty: the user that the MongoDB load works as, with the two
// databases that it needs and no other. The administrator is made by the image itself.
db.getSiblingDB("admin").createUser({
  user: process.env.MONGO_USER,
  pwd: process.env.MONGO_PASSWORD,
  roles: ["btc", "tickhouse"].map((name) => ({ role: "readWrite", db: name })),
});
